"""
A guest's kernel that changes its own text under load (ktext/): static keys and calls, ftrace, events, probes, compiled BPF.

usage: ktext_test.py VIREO KTEXT [CLASS[.TEST]...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import sys
from pathlib import Path

import guest
import harness

KTEXT = Path(sys.argv.pop(2)).resolve()


class Kernel(harness.Case):
    """Each a boot of its own."""

    def test_quick(self):
        """A few rounds on two vCPUs."""
        self.assertIn("function", guest.run_cases(self, KTEXT, "--rounds 4", 2))

    def test_one_cpu(self):
        """Nobody else runs what is changed."""
        guest.run_cases(self, KTEXT, "--rounds 64", 1)

    def test_four_cpus(self):
        """All of them run what is changed."""
        guest.run_cases(self, KTEXT, "--rounds 64", 4)


if __name__ == "__main__":
    harness.main()
