"""The benchmark's parts; bench/run is the command."""
