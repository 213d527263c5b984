"""`vireo disk map`, `commit` and `rebase`: what they say and do to backing chains, held against qemu-img."""

import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MIB = 1 << 20
F_OFD_SETLKW = 38
VARIANTS = ("cluster_size=512", "cluster_size=4k", "", "cluster_size=2M", "extended_l2=on",
            "extended_l2=on,cluster_size=16k", "compat=0.10", "compat=0.10,cluster_size=1k")


def qemu(*args):
    """Runs a program of QEMU's; its standard output."""
    result = subprocess.run([*map(str, args)], check=False, capture_output=True)
    if result.returncode:
        raise AssertionError(f"{args}: {result.stdout.decode()} {result.stderr.decode()}")
    return result.stdout


class Chain(harness.Case):
    """Images of qemu-img's: base.raw of 3 MiB, mid.qcow2 and top.qcow2 of 4 MiB upon it."""

    def setUp(self):
        super().setUp()
        if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
            self.skipTest("needs qemu-img and qemu-io")
        self.random = random.Random(5)

    def path(self, name):
        """Of a file of the test's."""
        return self.dir / name

    def scribble(self, name, fmt, size, writes=12):
        """Random writes of qemu-io's, zeroes among them."""
        commands = []
        for i in range(writes):
            offset = self.random.randrange(size // 512) * 512
            length = min(self.random.choice((512, 3072, 70 * 1024, 300 * 1024)), size - offset)
            kind = "-z" if i % 4 == 3 else f"-P {self.random.randrange(1, 255)}"
            commands += ["-c", f"write {kind} {offset} {length}"]
        qemu("qemu-io", "-f", fmt, *commands, self.path(name))

    def chain(self, options):
        """The three images, with something in each, and want.raw with what the uppermost holds."""
        for name in ("base.raw", "mid.qcow2", "top.qcow2", "want.raw"):
            self.path(name).unlink(missing_ok=True)
        qemu("qemu-img", "create", "-f", "raw", self.path("base.raw"), 3 * MIB)
        self.scribble("base.raw", "raw", 3 * MIB)
        option = ["-o", options] if options else []
        qemu("qemu-img", "create", "-f", "qcow2", *option, "-b", "base.raw", "-F", "raw", self.path("mid.qcow2"), "4M")
        self.scribble("mid.qcow2", "qcow2", 4 * MIB)
        qemu("qemu-img", "create", "-f", "qcow2", *option, "-b", "mid.qcow2", "-F", "qcow2", self.path("top.qcow2"))
        self.scribble("top.qcow2", "qcow2", 4 * MIB)
        qemu("qemu-img", "convert", "-O", "raw", self.path("top.qcow2"), self.path("want.raw"))

    def disk(self, *args, **kwargs):
        """`vireo disk` with the directory permitted; its standard output, when all is well."""
        result = self.run_vireo("disk", *args, "--backing", self.dir, **kwargs)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout.decode()

    def same(self, name, fmt="qcow2"):
        """It holds what it did, and is sound."""
        qemu("qemu-img", "compare", "-f", fmt, "-F", "raw", self.path(name), self.path("want.raw"))
        if fmt == "qcow2":
            qemu("qemu-img", "check", "-f", "qcow2", self.path(name))

    def backing(self, name):
        """What qemu-img says that it has, and of which format."""
        info = json.loads(qemu("qemu-img", "info", "--output=json", self.path(name)))
        return info.get("backing-filename"), info.get("backing-filename-format")

    def test_map(self):
        """Extents are those of qemu-img map, and where the bytes lie is true."""
        for options in VARIANTS:
            with self.subTest(options):
                self.chain(options)
                extents = json.loads(self.disk("map", self.path("top.qcow2"), "--json"))
                theirs = json.loads(qemu("qemu-img", "map", "--output=json", self.path("top.qcow2")))
                files = [self.path(name).read_bytes() for name in ("top.qcow2", "mid.qcow2", "base.raw")]
                want = self.path("want.raw").read_bytes()
                pos = 0
                for extent in extents:
                    start, end = extent["offset"], extent["offset"] + extent["length"]
                    self.assertEqual(start, pos)
                    pos = end
                    if extent["kind"] == "data":
                        host = extent["host_offset"]
                        self.assertEqual(files[extent["depth"]][host:host + end - start], want[start:end])
                    else:
                        self.assertFalse(any(want[start:end]))
                self.assertEqual(pos, 4 * MIB)
                ours = [0] * (4 * MIB // 512)
                for extent in extents:
                    for i in range(extent["offset"] // 512, (extent["offset"] + extent["length"]) // 512):
                        ours[i] = (extent["kind"] == "data", extent["host_offset"] is not None)
                for extent in theirs:
                    for i in range(extent["start"] // 512, (extent["start"] + extent["length"]) // 512):
                        self.assertEqual(ours[i][0], extent["data"], (options, i * 512))
                lines = [line.split() for line in self.disk("map", self.path("top.qcow2")).splitlines()]
                self.assertEqual(sum(int(line[1], 16) for line in lines[1:]), 4 * MIB)

    def test_map_compressed(self):
        """Compressed clusters have no place where their bytes lie."""
        data = self.path("data.raw")
        data.write_bytes(b"vireo" * 100000 + bytes(500000))
        qemu("qemu-img", "convert", "-c", "-O", "qcow2", data, self.path("packed.qcow2"))
        extents = json.loads(self.disk("map", self.path("packed.qcow2"), "--json"))
        self.assertEqual([(e["kind"], e["compressed"], e["host_offset"]) for e in extents],
                         [("data", True, None), ("hole", False, None)])

    def test_commit(self):
        """What it holds is in the backing file afterwards, which may have been shorter; it is empty, and reads the same."""
        for options in VARIANTS:
            with self.subTest(options):
                self.chain(options)
                qemu("qemu-img", "resize", self.path("top.qcow2"), "5M")
                qemu("qemu-io", "-c", "write -P 77 4900k 70k", self.path("top.qcow2"))
                qemu("qemu-img", "convert", "-O", "raw", self.path("top.qcow2"), self.path("want.raw"))
                self.disk("commit", self.path("top.qcow2"))
                self.same("mid.qcow2")
                self.same("top.qcow2")
                extents = json.loads(self.disk("map", self.path("top.qcow2"), "--json"))
                self.assertNotIn(0, [extent["depth"] for extent in extents])
                self.disk("commit", self.path("mid.qcow2"))
                self.same("base.raw", "raw")
                self.same("mid.qcow2")
                self.same("top.qcow2")

    def wait_for_locks(self, *names):
        """The kernel closes the files of a killed process's io_uring a moment after its end."""
        for name in names:
            with open(self.path(name), "r+b") as file:
                fcntl.fcntl(file, F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))

    def test_commit_killed(self):
        """Wherever it ends, the same is read through the image, and another try ends it."""
        self.chain("cluster_size=512")
        for name in ("top.qcow2", "mid.qcow2"):
            shutil.copy(self.path(name), self.path(name + ".before"))
        for i in range(12):
            for name in ("top.qcow2", "mid.qcow2"):
                shutil.copy(self.path(name + ".before"), self.path(name))
            vireo = subprocess.Popen([harness.VIREO, "disk", "commit", self.path("top.qcow2"), "--backing", self.dir],
                                     stderr=subprocess.DEVNULL)
            time.sleep(i * 0.003)  # anywhere
            vireo.send_signal(signal.SIGKILL)
            vireo.wait()
            self.wait_for_locks("top.qcow2", "mid.qcow2")
            qemu("qemu-img", "compare", "-F", "raw", self.path("top.qcow2"), self.path("want.raw"))
            self.disk("commit", self.path("top.qcow2"))
            qemu("qemu-img", "compare", "-F", "raw", self.path("mid.qcow2"), self.path("want.raw"))
            qemu("qemu-img", "compare", "-F", "raw", self.path("top.qcow2"), self.path("want.raw"))

    def test_rebase(self):
        """Onto any other file, or none, and back: it holds the same, and says what it has."""
        other = self.path("other.img")
        other.write_bytes(bytes(self.random.randrange(256) for _ in range(4096)) * (5 * MIB // 4096))
        for options in VARIANTS:
            with self.subTest(options):
                self.chain(options)
                top = self.path("top.qcow2")
                self.disk("rebase", top, "--onto", self.path("base.raw"))
                self.assertEqual(self.backing("top.qcow2"), (str(self.path("base.raw")), "raw"))
                self.same("top.qcow2")
                self.disk("rebase", top, "--onto", "other.img", "--onto-format", "raw", cwd=self.dir)
                self.assertEqual(self.backing("top.qcow2"), ("other.img", "raw"))
                self.same("top.qcow2")
                self.disk("rebase", top, "--onto", "none")
                self.assertEqual(self.backing("top.qcow2"), (None, None))
                self.same("top.qcow2")
                self.disk("rebase", top, "--onto", self.path("mid.qcow2"))
                self.same("top.qcow2")
                qemu("qemu-img", "rebase", "-b", "other.img", "-F", "raw", top)
                qemu("qemu-img", "commit", top)

    def test_rebase_takes_what_differs(self):
        """An image of what its new backing file has takes no room."""
        self.chain("")
        before = self.path("top.qcow2").stat().st_size
        qemu("qemu-img", "convert", "-O", "qcow2", self.path("mid.qcow2"), self.path("flat.qcow2"))
        self.disk("rebase", self.path("top.qcow2"), "--onto", self.path("flat.qcow2"))
        self.same("top.qcow2")
        self.assertEqual(self.path("top.qcow2").stat().st_size, before)

    def snapshot_is(self, name, want):
        """The snapshot of top.qcow2 holds that, as qemu-img reads it."""
        out = self.path("snapshot.raw")
        qemu("qemu-img", "convert", "-l", f"snapshot.name={name}", "-O", "raw", self.path("top.qcow2"), out)
        self.assertEqual(out.read_bytes(), want)

    def test_snapshots_refused(self):
        """Where a snapshot would lose what it has from the backing file, nothing changes."""
        for options in (v for v in VARIANTS if "2M" not in v):  # of which the snapshot would have all itself
            with self.subTest(options):
                self.chain(options)
                top = self.path("top.qcow2")
                qemu("qemu-img", "snapshot", "-c", "one", top)
                was = self.path("want.raw").read_bytes()
                qemu("qemu-io", "-c", "write -z 0 4M", "-c", "write -P 7 0 4M", top)  # all of it is the disk's own
                self.path("want.raw").write_bytes(b"\7" * (4 * MIB))
                below = self.path("mid.qcow2").read_bytes()
                for command in (("commit", top), ("rebase", top, "--onto", "none")):
                    self.one_line(self.run_vireo("disk", *command, "--backing", self.dir), 2, "snapshot 'one'", "offset")
                self.assertEqual(self.path("mid.qcow2").read_bytes(), below)
                self.same("top.qcow2")
                self.snapshot_is("one", was)

    def test_snapshots_commit(self):
        """What the image holds is in the snapshot too, or it is not in the backing file's way: both keep what they hold."""
        for options in VARIANTS:
            with self.subTest(options):
                self.chain(options)
                top = self.path("top.qcow2")
                qemu("qemu-img", "snapshot", "-c", "one", top)
                was = self.path("want.raw").read_bytes()
                extent = next(e for e in json.loads(self.disk("map", top, "--json"))
                              if e["depth"] == 0 and e["kind"] == "data")
                qemu("qemu-io", "-c", f"write -P 9 {extent['offset']} 512", top)
                qemu("qemu-img", "convert", "-O", "raw", top, self.path("want.raw"))
                self.disk("commit", top)
                self.same("mid.qcow2")
                self.same("top.qcow2")
                self.snapshot_is("one", was)

    def test_snapshots_rebase(self):
        """Onto a file that has what the snapshots read from the old one."""
        for options in VARIANTS:
            with self.subTest(options):
                self.chain(options)
                top, flat = self.path("top.qcow2"), self.path("flat.qcow2")
                qemu("qemu-img", "snapshot", "-c", "one", top)
                was = self.path("want.raw").read_bytes()
                qemu("qemu-io", "-c", "write -P 9 1M 1M", top)
                qemu("qemu-img", "convert", "-O", "raw", top, self.path("want.raw"))
                qemu("qemu-img", "convert", "-O", "qcow2", self.path("mid.qcow2"), flat)
                self.disk("rebase", top, "--onto", flat)
                self.assertEqual(self.backing("top.qcow2"), (str(flat), "qcow2"))
                self.same("top.qcow2")
                self.snapshot_is("one", was)

    def test_unsafe(self):
        """Only the name: of a file that is not there, and a format where there was none."""
        self.chain("")
        top, moved = self.path("top.qcow2"), self.path("moved.img")
        self.path("mid.qcow2").rename(moved)
        self.one_line(self.run_vireo("disk", "map", top, "--backing", self.dir), 2, "mid.qcow2", "No such file")
        self.disk("rebase", top, "--onto", moved, "--onto-format", "qcow2", "--unsafe")
        self.same("top.qcow2")
        self.disk("rebase", top, "--onto", "/nowhere.raw", "--unsafe")
        self.assertEqual(self.backing("top.qcow2"), ("/nowhere.raw", "raw"))

    def test_refused(self):
        """One line for each thing that is not permitted, or not known."""
        self.chain("")
        top = self.path("top.qcow2")
        for command in (("map", top), ("commit", top), ("rebase", top, "--onto", "none")):
            self.one_line(self.run_vireo("disk", *command), 2, self.path("mid.qcow2"), "--backing")
        # Each of the chain counts, and links do not help.
        self.one_line(self.run_vireo("disk", "map", top, "--backing", self.path("mid.qcow2")), 2,
                      self.path("base.raw"))
        os.symlink("/etc/passwd", self.path("link.raw"))
        self.disk("rebase", top, "--onto", self.path("link.raw"), "--unsafe")
        self.one_line(self.run_vireo("disk", "map", top, "--backing", self.dir), 2, "/etc/passwd")
        self.one_line(self.run_vireo("disk", "rebase", top), 2, "--onto")
        self.disk("rebase", top, "--onto", top, "--unsafe")
        self.one_line(self.run_vireo("disk", "map", top, "--backing", self.dir), 2, "loop")
        self.one_line(self.run_vireo("disk", "commit", self.path("base.raw"), "--backing", self.dir), 2)
        # The list of the host's user.
        self.chain("")
        config = self.path("config")
        (config / "vireo").mkdir(parents=True)
        (config / "vireo" / "backing").write_text(f"# ours\n  {self.dir}  # all\n", encoding="ascii")
        environment = {**os.environ, "XDG_CONFIG_HOME": str(config)}
        self.assertEqual(self.run_vireo("disk", "map", top, env=environment).returncode, 0)
        # No format: never a guess.
        subprocess.run(["qemu-img", "rebase", "-u", "-b", "mid.qcow2", "-F", "", top], check=False, capture_output=True)
        if self.backing("top.qcow2") == ("mid.qcow2", None):
            self.one_line(self.run_vireo("disk", "map", top, "--backing", self.dir), 2, "--onto-format")

    def test_run(self):
        """A VM has the chain that its command line permits, and holds its files."""
        self.chain("")
        top, kernel = self.path("top.qcow2"), self.kernel("debug")
        self.one_line(self.run_vireo("run", "--kernel", kernel, "--disk", top), 2, self.path("mid.qcow2"), "backing=")
        result = self.run_vireo("run", "--kernel", kernel, "--disk", f"{top},backing={self.dir}",
                                "--debug-exit")
        self.assertEqual(result.returncode, 0x15 << 1 | 1, result.stderr)
        self.same("top.qcow2")

    def test_long_chain(self):
        """64 images, and no more."""
        image = self.path("0.raw")
        image.write_bytes(bytes(MIB))
        for i in range(1, 65):
            below, image = image, self.path(f"{i}.qcow2")
            qemu("qemu-img", "create", "-f", "qcow2", "-u", "-b", below, "-F", "raw" if i == 1 else "qcow2", image, "1M")
        self.disk("map", self.path("63.qcow2"))
        self.one_line(self.run_vireo("disk", "map", image, "--backing", self.dir), 2, "64")


if __name__ == "__main__":
    harness.main()
