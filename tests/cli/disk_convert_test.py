"""`vireo disk convert` and `compare`, crossed with qemu-img in both directions."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MIB = 1 << 20
HAVE_QEMU = shutil.which("qemu-img") is not None
needs_qemu = unittest.skipUnless(HAVE_QEMU, "qemu-img is not there")


def make_raw(path, size, seed):
    """Noise, text, zeroes that are there and holes, in runs of all lengths."""
    dice = random.Random(seed)
    with open(path, "wb") as file:
        while file.tell() < size:
            n = min(size - file.tell(), dice.choice([512, 4096, 20000, 65536, 300000, MIB]))
            kind = dice.randrange(4)
            if kind == 0:
                file.write(dice.randbytes(n))
            elif kind == 1:
                file.write((b"line %d of a text\n" % dice.randrange(1000) * (n // 16 + 1))[:n])
            elif kind == 2:
                file.write(bytes(n))
            else:
                file.seek(n, os.SEEK_CUR)
        file.truncate(size)


def qemu_img(*args):
    """Runs qemu-img, which must not complain."""
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True).stdout.decode()


class Disk(harness.Case):
    """With a raw image to begin with."""

    def setUp(self):
        super().setUp()
        self.raw = self.dir / "image.raw"
        make_raw(self.raw, 9 * MIB + 1536, 1)

    def disk(self, *args):
        """`vireo disk args`, which must succeed: what it prints."""
        result = self.run_vireo("disk", *args)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def no_litter(self, *names):
        """Nothing is in the directory but these."""
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), sorted(names))


class Convert(Disk):
    """Whole images."""

    SHAPES = [(), ("--cluster-size", "512"), ("--cluster-size", "4K"), ("--cluster-size", "2M"), ("--compress",),
              ("--compress", "--cluster-size", "4K"), ("--compress", "--compression", "zstd"),
              ("--compress", "--compression", "zstd", "--cluster-size", "2M"),
              ("--depth", "1"), ("--depth", "64")]

    def test_there_and_back(self):
        """raw to qcow2 of each shape, and back to the same bytes; qemu-img finds nothing wrong with it."""
        for shape in self.SHAPES:
            with self.subTest(shape=shape):
                there, back = self.dir / "there.qcow2", self.dir / "back.raw"
                self.disk("convert", self.raw, there, *shape)
                self.disk("convert", there, back)
                self.assertEqual(back.read_bytes(), self.raw.read_bytes())
                self.assertEqual(self.disk("compare", self.raw, there), "the same\n")
                if HAVE_QEMU:
                    qemu_img("check", "-f", "qcow2", there)
                    qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, there)
                there.unlink()
                back.unlink()

    @needs_qemu
    def test_from_qemu(self):
        """Images of qemu-img's, compressed ones among them."""
        for options in (["-o", "compat=0.10"], ["-o", "cluster_size=512"], ["-c"], ["-c", "-o", "compression_type=zstd"],
                        ["-c", "-o", "cluster_size=2M"], ["-o", "extended_l2=on"], ["-o", "preallocation=metadata"]):
            with self.subTest(options=options):
                image, back = self.dir / "image.qcow2", self.dir / "back.raw"
                qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, self.raw, image)
                self.disk("convert", image, back, "--replace")
                self.assertEqual(back.read_bytes(), self.raw.read_bytes())
                self.disk("convert", image, self.dir / "again.qcow2", "--replace", "--compress")
                qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.dir / "again.qcow2")

    def test_thin(self):
        """What is zeroes takes no room, whether the source had room for it or not."""
        big = self.dir / "big.raw"
        with open(big, "wb") as file:
            file.write(bytes(16 * MIB))
            file.truncate(1 << 40)
            file.seek(1 << 39)
            file.write(b"x" * 100)
        for name in ("thin.raw", "thin.qcow2"):
            self.disk("convert", big, self.dir / name)
            self.assertLess((self.dir / name).stat().st_blocks * 512, 4 * MIB)
            self.assertEqual(self.disk("compare", big, self.dir / name), "the same\n")

    @needs_qemu
    def test_compressed_room(self):
        """About as small as qemu-img makes it."""
        for kind in ("zlib", "zstd"):
            ours, theirs = self.dir / "ours.qcow2", self.dir / "theirs.qcow2"
            self.disk("convert", self.raw, ours, "--compress", "--compression", kind, "--replace")
            qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", "-o", f"compression_type={kind}", self.raw, theirs)
            self.assertLess(ours.stat().st_size, theirs.stat().st_size * 1.1)

    def test_json(self):
        """What was made."""
        told = json.loads(self.disk("convert", self.raw, self.dir / "to.qcow2", "--json"))
        self.assertEqual(told["size"], 9 * MIB + 1536)
        self.assertEqual(told["format"], "qcow2")
        self.assertEqual(told["allocated"], (self.dir / "to.qcow2").stat().st_blocks * 512)

    def test_chain(self):
        """A chain becomes one image, where its backing file is permitted."""
        if not HAVE_QEMU:
            self.skipTest("qemu-img is not there")
        top, flat = self.dir / "top.qcow2", self.dir / "flat.qcow2"
        qemu_img("create", "-f", "qcow2", "-b", self.raw, "-F", "raw", top)
        subprocess.run(["qemu-io", "-c", "write -P 7 1M 300k", top], check=True, capture_output=True)
        self.one_line(self.run_vireo("disk", "convert", top, flat), 2, "image.raw")
        self.assertFalse(flat.exists())
        self.disk("convert", top, flat, "--backing", self.raw)
        qemu_img("compare", top, flat)
        self.assertNotIn("backing", qemu_img("info", flat))


class Target(Disk):
    """Whole or absent."""

    def test_exists(self):
        """It is not written over, unless that is said; then its place is taken at once."""
        to = self.dir / "to.raw"
        to.write_bytes(b"precious")
        self.one_line(self.run_vireo("disk", "convert", self.raw, to), 2, "to.raw", "--replace")
        self.assertEqual(to.read_bytes(), b"precious")
        os.chmod(to, 0o640)
        self.disk("convert", self.raw, to, "--replace")
        self.assertEqual(to.read_bytes(), self.raw.read_bytes())
        self.assertEqual(to.stat().st_mode & 0o777, 0o640)
        self.no_litter("image.raw", "to.raw")

    def test_source_is_bad(self):
        """Nothing is left behind."""
        bad = self.dir / "bad.qcow2"
        bad.write_bytes(b"not an image" * 100)
        self.one_line(self.run_vireo("disk", "convert", bad, self.dir / "to.raw"), 2, "bad.qcow2")
        self.no_litter("image.raw", "bad.qcow2")

    def test_interrupted(self):
        """By signals, the strongest too, at any moment: the target is whole or absent, and there is no litter."""
        big = self.dir / "big.raw"
        with open(big, "wb") as file:
            for _ in range(24):
                file.write(os.urandom(MIB))
        dice = random.Random(5)
        for i in range(12):
            process = subprocess.Popen([harness.VIREO, "disk", "convert", big, self.dir / "to.qcow2", "--compress"],
                                       stderr=subprocess.DEVNULL)
            time.sleep(dice.random() * 0.3)
            process.send_signal(signal.SIGKILL if i % 2 else signal.SIGINT)
            status = process.wait()
            to = self.dir / "to.qcow2"
            if to.exists():
                self.assertEqual(self.disk("compare", big, to), "the same\n")
                to.unlink()
            else:
                self.assertNotEqual(status, 0)
            self.no_litter("image.raw", "big.raw")

    def test_no_room(self):
        """A full file system: one line, and no target."""
        result = subprocess.run(["sh", "-c", 'ulimit -f 2048; trap "" XFSZ; exec "$@"', "sh", harness.VIREO, "disk", "convert",
                                 self.raw, self.dir / "to.raw"], capture_output=True, check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertEqual(result.stderr.count(b"\n"), 1, result.stderr)
        self.no_litter("image.raw")

    def test_usage(self):
        """What cannot be is refused by one line."""
        to = self.dir / "to.raw"
        self.one_line(self.run_vireo("disk", "convert", self.raw), 2, "FROM TO")
        self.one_line(self.run_vireo("disk", "convert", self.raw, to, "--compress"), 2, "qcow2")
        self.one_line(self.run_vireo("disk", "convert", self.raw, to, "--depth", "0"), 2, "1 to 256")
        self.one_line(self.run_vireo("disk", "convert", self.raw, self.dir / "to.vmdk"), 2, "to.vmdk", "qcow2")
        self.one_line(self.run_vireo("disk", "convert", self.dir / "none.raw", to), 2, "none.raw")
        self.one_line(self.run_vireo("disk", "convert", self.raw, self.dir / "to.qcow2", "--cluster-size", "5000"), 2, "5000")
        self.no_litter("image.raw")


class Import(Disk):
    """What qemu-img reads for us."""

    @needs_qemu
    def test_formats(self):
        """Each that it can write, by its name alone."""
        for kind in ("vmdk", "vdi", "vhdx", "vpc"):
            with self.subTest(kind=kind):
                foreign = self.dir / f"foreign.{kind}"
                qemu_img("convert", "-f", "raw", "-O", kind, self.raw, foreign)
                self.one_line(self.run_vireo("disk", "convert", foreign, self.dir / "to.qcow2"), 2, "format")
                self.disk("convert", "--format", kind, foreign, self.dir / "to.qcow2", "--compress", "--replace")
                self.disk("convert", "--format", kind, foreign, self.dir / "to.raw", "--replace")
                self.assertEqual(self.disk("compare", self.raw, self.dir / "to.raw"), "the same\n")
                self.assertEqual(self.disk("compare", self.raw, self.dir / "to.qcow2"), "the same\n")

    @needs_qemu
    def test_bad(self):
        """One line that says what qemu-img says, and no target."""
        self.one_line(self.run_vireo("disk", "convert", "--format", "vmdk", self.raw, self.dir / "to.raw"), 2, "vmdk")
        self.one_line(self.run_vireo("disk", "convert", "--format", "no-such", self.raw, self.dir / "to.raw"), 2, "no-such")
        self.one_line(self.run_vireo("disk", "convert", "--format", "a,b", self.raw, self.dir / "to.raw"), 2, "a,b")
        self.no_litter("image.raw")

    @needs_qemu
    def test_no_parent(self):
        """A backing file that the image names is not opened."""
        secret, foreign = self.dir / "secret.raw", self.dir / "foreign.qed"
        secret.write_bytes(b"secret" * 100000)
        qemu_img("create", "-f", "qed", "-b", secret, "-F", "raw", foreign)
        self.disk("convert", "--format", "qed", foreign, self.dir / "to.raw")
        self.assertNotIn(b"secret", (self.dir / "to.raw").read_bytes())

    def test_no_qemu(self):
        """It says what is missing, and where it is to be had."""
        result = self.run_vireo("disk", "convert", "--format", "vdi", self.raw, self.dir / "to.raw",
                                env={**os.environ, "PATH": "/nonexistent"})
        self.one_line(result, 2, "qemu-img", "qemu-utils")
        self.no_litter("image.raw")


class Compare(Disk):
    """`vireo disk compare`."""

    def differ(self, *args):
        """It finds a difference: what it prints."""
        result = self.run_vireo("disk", "compare", *args)
        self.assertEqual(result.returncode, 3, result.stderr.decode())
        return result.stdout.decode()

    def test_first_difference(self):
        """To the byte, wherever the images have holes."""
        other = self.dir / "other.raw"
        dice = random.Random(3)
        data = bytearray(self.raw.read_bytes())
        for _ in range(8):
            at = [dice.randrange(len(data)) for _ in range(2)]
            changed = bytearray(data)
            for offset in at:
                changed[offset] ^= 0x10
            other.write_bytes(changed)
            self.assertEqual(self.differ(self.raw, other), f"content differs at offset {min(at)}\n")
            told = json.loads(self.differ(other, self.raw, "--json"))
            self.assertEqual(told, {"same": False, "difference": "content", "offset": min(at)})
        self.assertEqual(self.differ(self.raw, other, "--quiet"), "")

    def test_sizes(self):
        """What only one has must be zeroes; strictly there must be none."""
        longer = self.dir / "longer.raw"
        shutil.copy(self.raw, longer)
        os.truncate(longer, 20 * MIB)
        self.assertEqual(self.disk("compare", self.raw, longer), "the same\n")
        self.assertIn(str(9 * MIB + 1536), self.differ(self.raw, longer, "--strict"))
        with open(longer, "r+b") as file:
            file.seek(15 * MIB + 5)
            file.write(b"x")
        for pair in ((self.raw, longer), (longer, self.raw)):
            self.assertEqual(self.differ(*pair), f"content differs at offset {15 * MIB + 5}\n")

    def test_errors(self):
        """Nothing to compare is no difference."""
        self.one_line(self.run_vireo("disk", "compare", self.raw, self.dir / "none.raw"), 2, "none.raw")
        self.one_line(self.run_vireo("disk", "compare", self.raw), 2, "FILE OTHER")
        text = self.run_vireo("disk", "compare", "--help").stdout.decode()
        self.assertIn("3: they differ", " ".join(text.split()))


class Bar(Disk):
    """On a terminal there is a bar; it goes away."""

    def test_bar(self):
        """With a rate and the time left."""
        big = self.dir / "big.raw"
        with open(big, "wb") as file:
            for _ in range(96):
                file.write(os.urandom(MIB))
        terminal = harness.Terminal("disk", "convert", big, self.dir / "to.qcow2", "--compress", "--cluster-size", "4K")
        self.addCleanup(terminal.close)
        terminal.expect(r"convert \[#*\.*\] +\d+ %  \S+ \S+ of 96 MiB  \S+ \S+/s  \S+ left")
        self.assertEqual(terminal.wait(), 0)


if __name__ == "__main__":
    harness.main()
