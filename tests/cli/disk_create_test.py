"""`vireo disk create`, `info` and `resize`, with qemu-img to judge."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MIB = 1 << 20


class Disk(harness.Case):
    """What the tests share."""

    def disk(self, *args, status=0):
        """What the command prints."""
        result = self.run_vireo("disk", *args)
        self.assertEqual(result.returncode, status, result.stderr.decode())
        return result.stdout.decode()

    def told(self, *args):
        """The same, as JSON."""
        return json.loads(self.disk(*args, "--json"))

    def qemu(self, *args):
        """What qemu-img prints; it has to be content."""
        result = subprocess.run(["qemu-img", *map(str, args)], capture_output=True, check=False)
        self.assertEqual(result.returncode, 0, (result.stdout + result.stderr).decode())
        return result.stdout.decode()


class Create(Disk):
    """New images."""

    def test_qcow2(self):
        """Each preallocation of each shape is an image without a fault that reads as zeroes, and takes the room that it should."""
        path = self.dir / "image.qcow2"
        zero = self.dir / "zero.raw"
        with open(zero, "wb") as f:
            f.truncate(5 * MIB)
        shapes = [[], ["--cluster-size", "512"], ["--cluster-size", "2M"], ["--version", "2"], ["--extended-l2"],
                  ["--refcount-bits", "1"], ["--refcount-bits", "64"], ["--compression", "zstd"], ["--lazy-refcounts"]]
        for shape in shapes:
            for preallocation in ("off", "metadata", "falloc", "full"):
                with self.subTest(shape=shape, preallocation=preallocation):
                    self.disk("create", path, "5M", "--preallocate", preallocation, "--replace", *shape)
                    self.qemu("check", path)
                    self.qemu("compare", "-f", "qcow2", "-F", "raw", path, zero)
                    thick = preallocation in ("falloc", "full")
                    if thick or "2M" not in shape: # four tables of 2 MiB are room too
                        self.assertEqual(os.stat(path).st_blocks * 512 >= 5 * MIB, thick)
                    # It is written to in place, and stays sound.
                    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", str(path)], check=True,
                                   stdout=subprocess.DEVNULL)
                    self.disk("bench", path, "--write", "--pattern", "random", "--count", "50")
                    self.qemu("check", path)

    def test_preallocated_extents(self):
        """All of a preallocated image has its place."""
        path = self.dir / "image.qcow2"
        self.disk("create", path, "5M", "--preallocate", "metadata")
        extents = json.loads(self.qemu("map", "--output=json", path))
        self.assertTrue(all("offset" in e for e in extents), extents)
        self.assertEqual([e["kind"] for e in json.loads(self.disk("map", path, "--json"))], ["data"])

    def test_raw(self):
        """Thin and thick."""
        for preallocation, blocks in (("off", 0), ("falloc", MIB), ("full", MIB)):
            path = self.dir / f"{preallocation}.raw"
            self.disk("create", path, "1M", "--preallocate", preallocation)
            self.assertEqual(path.stat().st_size, MIB)
            self.assertGreaterEqual(path.stat().st_blocks * 512, blocks)
        self.assertEqual((self.dir / "off.raw").stat().st_blocks, 0)

    def test_over(self):
        """An image over a backing file is as large, and reads as it; a name that was relative is so to the image."""
        base = self.dir / "base.raw"
        base.write_bytes(os.urandom(MIB))
        top = self.dir / "top.qcow2"
        subprocess.run([harness.VIREO, "disk", "create", "top.qcow2", "--over", "base.raw"], cwd=self.dir, check=True)
        self.assertEqual(json.loads(self.qemu("info", "--output=json", top))["backing-filename"], "base.raw")
        self.qemu("compare", "-f", "qcow2", "-F", "raw", top, base)
        told = self.told("info", top)
        self.assertEqual((told["backing"], told["backing_format"], told["size"]), ("base.raw", "raw", MIB))

    def test_chain(self):
        """Info follows the chain as far as that is permitted, and says why it stops. What images have for names does no harm to a terminal."""
        for command in (["base.raw", "4M"], ["mid.qcow2", "--over", "base.raw"], ["top.qcow2", "--over", "mid.qcow2", "--backing", "."]):
            subprocess.run([harness.VIREO, "disk", "create", *command], cwd=self.dir, check=True)
        top = self.dir / "top.qcow2"
        told = self.told("info", top, "--backing", self.dir)
        self.assertEqual([(os.path.basename(c["path"]), c["format"], c["size"]) for c in told["chain"]],
                         [("mid.qcow2", "qcow2", 4 * MIB), ("base.raw", "raw", 4 * MIB)])
        self.assertNotIn("chain_missing", told)
        told = self.told("info", top)
        self.assertEqual(told["chain"], [])
        self.assertIn("permitted", told["chain_missing"])
        told = self.told("info", top, "--backing", self.dir / "mid.qcow2")
        self.assertEqual(len(told["chain"]), 1)
        self.assertIn("base.raw", told["chain_missing"])
        image = top.read_bytes()
        for name in (b"\x1b[2Jq", b"\xff\xc0\x80\xedq", b"\xc2\x9b\x7f\nq"):
            top.write_bytes(image.replace(b"mid.q", name.ljust(5, b"q")))
            self.assertRegex(self.told("info", top)["backing"], r"^\?[\[?]")
            self.assertNotRegex(self.disk("info", top), r"[\x00-\x09\x0b-\x1f\x7f-\x9f]|\n\w*q+cow2")

    def test_refused(self):
        """One line each, and nothing is left behind."""
        here = self.dir / "here.qcow2"
        self.disk("create", here, "1M")
        before = here.read_bytes()
        for args, *words in (
                ((here, "1M"), "here.qcow2", "--replace"),
                ((self.dir / "a.qcow2",), "size", "missing"),
                ((self.dir / "a.qcow2", "x"), "'x'", "10G"),
                ((self.dir / "a.qcow2", "0"), "'0'"),
                ((self.dir / "a.qcow2", "1000"), "1000", "multiples of 512"),
                ((self.dir / "a.vmdk", "1M"), "raw", "qcow2"),
                ((self.dir / "a.raw", "1M", "--cluster-size", "64K"), "a.raw", "cluster-size"),
                ((self.dir / "a.raw", "1M", "--preallocate", "metadata"), "a.raw", "falloc"),
                ((self.dir / "a.qcow2", "1M", "--preallocate", "some"), "off|metadata|falloc|full"),
                ((self.dir / "a.qcow2", "1M", "--cluster-size", "3K"), "3072", "powers of two"),
                ((self.dir / "a.qcow2", "1M", "--version", "4"), "4", "2 and 3"),
                ((self.dir / "a.qcow2", "1M", "--version", "2", "--lazy-refcounts"), "version 3"),
                ((self.dir / "a.qcow2", "1M", "--over", self.dir / "none.raw"), "none.raw"),
                ((self.dir / "no" / "a.qcow2", "1M"), "a.qcow2")):
            with self.subTest(args):
                self.one_line(self.run_vireo("disk", "create", *args), 2, *words)
        self.assertEqual([p.name for p in self.dir.iterdir()], ["here.qcow2"])
        self.assertEqual(here.read_bytes(), before)


class Long(Disk):
    """What takes its time: a bar, and an end when it is asked for."""

    def test_bar(self):
        """With a rate and the time left; then it goes away."""
        terminal = harness.Terminal("disk", "create", self.dir / "full.raw", "3G", "--preallocate", "full")
        self.addCleanup(terminal.close)
        terminal.expect(r"create \[#*\.*\] +\d+ %  \S+ \S+ of 3\.0 GiB  \S+ \S+/s  \S+ left")
        terminal.type("\x03")
        self.assertEqual(terminal.wait(), 1)
        self.assertIn("interrupted", terminal.text)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_killed(self):
        """Whole or absent, and nothing beside it."""
        path = self.dir / "full.qcow2"
        dice = random.Random(7)
        for i in range(8):
            process = subprocess.Popen([harness.VIREO, "disk", "create", path, "64M", "--preallocate", "full"], stderr=subprocess.PIPE)
            time.sleep(dice.random() * 0.15)
            process.send_signal(signal.SIGKILL if i % 2 else signal.SIGTERM)
            said = process.communicate()[1]
            if path.exists():
                self.qemu("check", path)
                path.unlink()
            elif i % 2 == 0 and process.returncode == 1:
                self.assertRegex(said, rb"^vireo: interrupted[^\n]*\n$")
            else:
                self.assertIn(process.returncode, (-signal.SIGKILL, -signal.SIGTERM)) # before it listens, it is just ended
            self.assertEqual(list(self.dir.iterdir()), [])


class Thin(Disk):
    """What is promised and not there."""

    def test_promises(self):
        """More than the file system has is warned of, with by how much; less is not."""
        result = self.run_vireo("disk", "create", self.dir / "small.qcow2", "1M")
        self.assertEqual(result.stderr, b"")
        result = self.run_vireo("disk", "create", self.dir / "large.qcow2", "500T")
        self.assertEqual(result.returncode, 0)
        self.assertRegex(result.stderr.decode(), r"(?s)^vireo: warning: .*large.qcow2.*promise 500\.0 TiB.* are missing\n$")
        told = self.told("info", self.dir / "small.qcow2")["thin"]
        self.assertEqual(told["images"], 2)
        self.assertGreater(told["promised"], told["available"])
        self.assertIn(b"are missing", self.run_vireo("disk", "info", self.dir / "small.qcow2").stderr)
        os.mkdir(self.dir / "other")
        result = self.run_vireo("disk", "create", self.dir / "other/small.qcow2", "1M")
        self.assertRegex(result.stderr.decode(), r"\(3\) promise 500\.0 TiB.* are missing\n$")
        os.unlink(self.dir / "large.qcow2")
        result = self.run_vireo("disk", "info", self.dir / "other/small.qcow2", "--json")
        self.assertEqual((result.stderr, json.loads(result.stdout)["thin"]["images"]), (b"", 2))

    def test_running(self):
        """A VM warns once there is less left than asked for, if that is not enough for what was promised."""
        path = self.dir / "large.qcow2"
        self.run_vireo("disk", "create", path, "500T")
        control = self.dir / "control"
        for limit, warns in (("1000T", True), ("100%", True), ("0", False)):
            terminal = harness.Terminal("run", "--kernel", self.kernel("idle"), "--disk", f"{path},space-warn={limit}", "--control",
                                        f"unix:{control}")
            self.addCleanup(terminal.close)
            said = terminal.expect(r"(?s)(.*)ready").group(1)
            status, disks = (json.loads(self.run_vireo("ctl", control, command).stdout) for command in ("status", "list"))
            self.assertEqual(status.get("low_on_space"), ["disk0"] if warns else None)
            self.assertEqual(["warning" in d for d in disks if d["kind"] == "disk"], [warns])
            self.assertEqual(self.run_vireo("ctl", control, "quit").returncode, 0)
            terminal.wait()
            self.assertEqual(len(re.findall(r"large.qcow2.* left, .*promise 500\.0 TiB more", said)), warns, said)


class Resize(Disk):
    """Other sizes."""

    def test_sizes(self):
        """Larger, by a difference, and smaller where that is asked for."""
        for name in ("image.qcow2", "image.raw"):
            path = self.dir / name
            self.disk("create", path, "1M")
            self.assertEqual(self.told("resize", path, "3M")["size"], 3 * MIB)
            self.assertEqual(self.told("resize", path, "+1M")["size"], 4 * MIB)
            result = self.run_vireo("disk", "resize", path, "2M")
            self.one_line(result, 2, "--shrink", str(4 * MIB))
            self.assertEqual(self.told("info", path)["size"], 4 * MIB)
            self.assertEqual(self.told("resize", path, "-2M", "--shrink"),
                             {"path": str(path), "before": 4 * MIB, "size": 2 * MIB})
            if name.endswith("qcow2"):
                self.qemu("check", path)
            self.one_line(self.run_vireo("disk", "resize", path, "nonsense"), 2, "nonsense")
            self.one_line(self.run_vireo("disk", "resize", path, "-2M", "--shrink"), 2, "-2M")
            self.one_line(self.run_vireo("disk", "resize", path, "3000000"), 2, "multiples")


if __name__ == "__main__":
    harness.main()
