"""`vireo disk snapshot`: what it says and does, held against qemu-img."""

import json
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

OPTIONS = ("cluster_size=512", "", "compat=0.10", "extended_l2=on", "refcount_bits=64,cluster_size=2M")


def qemu(*args):
    """Runs a program of QEMU's; its standard output."""
    return subprocess.run([*map(str, args)], check=True, capture_output=True, text=True).stdout


@unittest.skipUnless(shutil.which("qemu-img") and shutil.which("qemu-io"), "needs qemu-img and qemu-io")
class Snapshot(harness.Case):
    """An image of qemu-img's, of 8 MiB."""

    def image(self, options=""):
        """With something in it."""
        path = self.dir / "disk.qcow2"
        path.unlink(missing_ok=True)
        qemu("qemu-img", "create", "-f", "qcow2", *(["-o", options] if options else []), path, "8M")
        self.write(path, 1)
        return path

    def write(self, path, pattern):
        """Other content."""
        qemu("qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 1M 3M", "-c", f"write -P {pattern + 1} 7M 70k", path)

    def holds(self, path, pattern):
        """The image is sound, and holds that."""
        qemu("qemu-img", "check", "-q", path)
        for at, value in (("1M 3M", pattern), ("7M 70k", pattern + 1)):
            text = qemu("qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {value} {at}", path)
            self.assertNotIn("verification failed", text)

    def snapshot(self, *words):
        """What it prints."""
        result = self.run_vireo("disk", "snapshot", *words)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout.decode()

    def refused(self, words, *said):
        """One line with all of these; status 1, or 2 where the words are wrong."""
        result = self.run_vireo("disk", "snapshot", *words)
        self.assertIn(result.returncode, (1, 2))
        self.one_line(result, result.returncode, *said)

    def test_both_ways(self):
        """Each reads, returns to and deletes what the other has made."""
        for options in OPTIONS:
            with self.subTest(options=options):
                path = self.image(options)
                self.assertEqual(self.snapshot("create", path, "ours"), "")
                self.holds(path, 1)
                self.write(path, 11)
                qemu("qemu-img", "snapshot", "-c", "theirs", path)
                self.write(path, 21)
                self.snapshot("create", path, "third")
                self.holds(path, 21)
                qemu("qemu-img", "snapshot", "-a", "ours", path)
                self.holds(path, 1)
                self.snapshot("revert", path, "theirs")
                self.holds(path, 11)
                self.snapshot("delete", path, "theirs")
                self.holds(path, 11)
                qemu("qemu-img", "snapshot", "-d", "ours", path)
                self.snapshot("revert", path, "third")
                self.snapshot("delete", path, "third")
                self.holds(path, 21)
                self.assertEqual(self.snapshot("list", path), "no snapshots\n")

    def test_list(self):
        """A tree, and JSON; somebody may have the image."""
        path = self.image()
        for name in ("base", "left"):
            self.snapshot("create", path, name)
        self.snapshot("revert", path, "base")
        self.snapshot("create", path, "right")
        lines = self.snapshot("list", path).splitlines()
        self.assertEqual([line[:16].rstrip() for line in lines], ["name", "base", "  left", "  right", "    (the disk)"])
        self.assertIn("8.0M", lines[1])
        told = json.loads(self.snapshot("list", "--json", path))
        self.assertEqual([(s["id"], s["name"], s["parent"], s["size"]) for s in told["snapshots"]],
                         [("1", "base", None, 8 << 20), ("2", "left", "1", 8 << 20), ("3", "right", "1", 8 << 20)])
        self.assertEqual(told["current"], "3")
        listed = qemu("qemu-img", "snapshot", "-l", path)
        self.assertTrue(all(name in listed for name in ("base", "left", "right")))

    def test_room(self):
        """What only a deleted snapshot had goes back to the host."""
        path = self.image()
        self.snapshot("create", path, "old")
        self.write(path, 11)
        before = path.stat().st_blocks * 512
        self.snapshot("delete", path, "old")
        self.assertLess(path.stat().st_blocks * 512, before - (2 << 20))
        self.holds(path, 11)

    def test_refused(self):
        """One line each, and the image stays as it is."""
        path = self.image()
        self.snapshot("create", path, "one")
        content = path.read_bytes()
        for words, said in ((("create", path, "one"), ("'one'",)), (("revert", path, "two"), ("'two'", "accepted are one")),
                            (("delete", path, ""), ("accepted are one",)), (("create", path, ""), ("0 bytes",)),
                            (("create", path, "a\tb"), ("0x09",)), (("create", path, "x" * 256), ("256",)),
                            (("make", path, "two"), ("'make'", "create, revert, delete and list")),
                            (("create", path), ("FILE NAME",)), (("list", path, "one"), ("list FILE",))):
            with self.subTest(words=words):
                self.refused(words, *said)
        self.assertEqual(path.read_bytes(), content)
        raw = self.dir / "disk.raw"
        raw.write_bytes(bytes(1 << 20))
        self.refused(("create", raw, "one"), "raw", "qcow2")
        narrow = self.image("refcount_bits=1")
        self.refused(("create", narrow, "one"), "refcounts of 1 bit")
        self.holds(narrow, 1)

    def test_convert(self):
        """A snapshot becomes an image of its own."""
        path = self.image()
        self.snapshot("create", path, "old")
        self.write(path, 11)
        to = self.dir / "old.qcow2"
        result = self.run_vireo("disk", "convert", "--snapshot", "old", path, to)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.holds(to, 1)


if __name__ == "__main__":
    harness.main()
