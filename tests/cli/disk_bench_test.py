"""`vireo disk bench`: that it makes the requests it says, not how fast they are."""

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MIB = 1 << 20


class Bench(harness.Case):
    """On a raw image of 8 MiB."""

    def setUp(self):
        super().setUp()
        self.image = self.dir / "image.raw"
        self.image.write_bytes(bytes(8 * MIB))

    def bench(self, *args):
        """What `vireo disk bench` tells of it."""
        result = self.run_vireo("disk", "bench", self.image, "--json", *args)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(result.stdout)

    def written(self):
        """The blocks of 4 KiB that are not zeroes."""
        data = self.image.read_bytes()
        return [i for i in range(len(data) // 4096) if any(data[i * 4096:(i + 1) * 4096])]

    def test_reads(self):
        """Reading changes nothing, and counts."""
        for pattern in ("sequential", "random"):
            told = self.bench("--count", 5000, "--depth", 8, "--pattern", pattern)
            self.assertEqual((told["requests"], told["block"], told["depth"]), (5000, 4096, 8))
            self.assertGreater(told["per-second"], 0)
            self.assertGreater(told["peak-memory"], 0)
        self.assertEqual(self.written(), [])

    def test_sequential_writes(self):
        """One block after the other, or so far apart as it is said; around the end."""
        self.bench("--write", "--count", 10)
        self.assertEqual(self.written(), list(range(10)))
        self.image.write_bytes(bytes(8 * MIB))
        self.bench("--write", "--count", 6, "--step", "3M")
        self.assertEqual(self.written(), [i * 256 for i in (0, 1, 3, 4, 6, 7)])

    def test_random_writes(self):
        """Everywhere, and at whole blocks."""
        self.bench("--write", "--count", 300, "--pattern", "random", "--block", "8K")
        blocks = self.written()
        self.assertGreater(len(blocks), 300)
        self.assertEqual(len(blocks) % 2, 0)
        self.assertLess(min(blocks), 256)
        self.assertGreater(max(blocks), 2048 - 256)

    def test_flushes(self):
        """After each so many."""
        self.assertEqual(self.bench("--write", "--count", 100, "--depth", 7, "--flush-every", 10)["flushes"], 10)
        self.assertEqual(self.bench("--write", "--count", 5, "--flush-every", 1)["flushes"], 5)

    def test_discards(self):
        """They give room back."""
        before = self.image.stat().st_blocks
        self.bench("--discard", "--block", "8M", "--count", 1)
        self.assertLess(self.image.stat().st_blocks, before)

    def test_usage(self):
        """What cannot be is refused by one line."""
        for args, word in ((("--write", "--discard"), "one of them"), (("--depth", "0"), "1 to 1024"), (("--block", "1000"), "512"),
                           (("--block", "16M"), "8388608"), (("--count", "0"), "1 and more"),
                           (("--step", "4K", "--pattern", "random"), "sequential")):
            self.one_line(self.run_vireo("disk", "bench", self.image, *args), 2, word)
        text = self.run_vireo("disk", "bench", self.image, "--count", "100").stdout.decode()
        self.assertRegex(text, r"^100 requests of 4096 bytes, 32 at once, in [\d.]+ s: \d+ a second, [\d.]+ MiB/s\n$")


if __name__ == "__main__":
    harness.main()
