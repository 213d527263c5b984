"""
A directory of the host in a guest, over virtio-fs with Debian's virtiofsd: read-write, read-only, many files, and programs run from it.

usage: share_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine.
"""

import hashlib
import os
import random
import signal
import struct
import subprocess
import unittest
from pathlib import Path

import guest
import harness

VIRTIOFSD = [Path(p) for p in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")]
MODE = 0o755
PAGE = 4096
MIB = 1 << 20
NOP = 0x90


def program(seed):
    """
    A static program of a MiB of straight code that adds constants up and writes the sum, 8 bytes; and those bytes. Instructions lie on eight bytes, so
    that code of any page is entered at its start.
    """
    rng = random.Random(seed)
    constants = [rng.randrange(-(1 << 31), 1 << 31) for _ in range(MIB // 8)]
    code = b"\x31\xdb" + bytes([NOP] * 6) + b"".join(b"\x48\x81\xc3" + struct.pack("<i", c) + bytes([NOP]) for c in constants)  # add rbx, c
    code += bytes.fromhex("53 4889e6 ba08000000 bf01000000 b801000000 0f05 31ff b83c000000 0f05")  # write(1, &rbx, 8), exit(0)
    start, base = 64 + 56, 0x400000
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, start + len(code), start + len(code), PAGE)
    return header + segment + code, struct.pack("<Q", sum(constants) & (1 << 64) - 1)


def runs(pid):
    """Whether a process is there, and not just waited for by somebody who does not come."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    """The processes that are its, at this moment. A thread that has just ended has none."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(word) for word in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


@unittest.skipUnless(any(p.exists() for p in VIRTIOFSD), "virtiofsd is not installed")
class Share(harness.Case):
    """Each a guest with a directory of the test's."""

    def setUp(self):
        super().setUp()
        self.share = self.dir / "share"
        self.share.mkdir()

    def script(self, text, options="", **kwargs):
        """Runs a script in a guest where the share is mounted at /mnt, and returns its lines."""
        script = f"#!/bin/busybox sh\nmount -t virtiofs data /mnt || exit 9\ncd /mnt\n{text}\n"
        return guest.run(self, "/test/run", {"test/run": script.encode()}, options=["--share", f"{self.share},tag=data{options}"], **kwargs)

    def test_both_ways(self):
        """What the host has, the guest reads; what the guest writes, the host has; names and kinds of files too."""
        sums = []
        for size in [0, 1, PAGE - 1, PAGE, 1 << 17, (1 << 20) + 1, 24 << 20]:
            data = random.Random(size).randbytes(size)
            (self.share / f"in-{size}").write_bytes(data)
            (self.share / f"in-{size}").chmod(0o640)
            sums.append(f"{hashlib.md5(data).hexdigest()}  in-{size}")
        lines = self.script("md5sum in-*; for f in in-*; do cat $f > out${f#in}; done; mkdir -p a/b/c; ln -s ../out-1 a/link; mv out-1 a/b/c/moved; "
                            "echo line >> out-4096; rm in-0; chmod 600 out-4095; stat -c %a out-4095 in-1; md5sum out-25165824; "
                            "echo 3 > /proc/sys/vm/drop_caches; md5sum out-25165824")
        self.assertEqual(sorted(lines[:7]), sorted(sums))
        self.assertEqual(lines[7:9], ["600", "640"])
        self.assertEqual([line.split()[0] for line in lines[9:]], [sums[-1].split()[0]] * 2)
        for size in [0, PAGE - 1, 1 << 17, (1 << 20) + 1, 24 << 20]:
            self.assertEqual((self.share / f"out-{size}").read_bytes(), random.Random(size).randbytes(size))
        self.assertEqual((self.share / "out-4096").read_bytes()[PAGE:], b"line\n")
        self.assertEqual((self.share / "a/b/c/moved").stat().st_size, 1)
        self.assertEqual(os.readlink(self.share / "a/link"), "../out-1")
        self.assertFalse((self.share / "in-0").exists())
        self.assertEqual((self.share / "out-4095").stat().st_mode & 0o777, 0o600)

    def test_readonly(self):
        """Nothing that would change it is let through, and nothing has changed."""
        (self.share / "file").write_text("as it was")
        (self.share / "dir").mkdir()
        before = {p: (p.lstat().st_mode, p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in self.share.rglob("*")}
        tries = ["echo x > file", "echo x >> file", "echo x > new", "rm file", "mv file new", "mkdir new", "rmdir dir", "ln file new", "ln -s file new",
                 "chmod 600 file", "touch file", "mknod new p", "truncate -s 1 file", "dd if=/dev/zero of=file conv=notrunc count=1"]
        lines = self.script("cat file; echo; " + "; ".join(f"({t}) 2>/dev/null && echo '{t}'" for t in tries) + "; true", ",readonly")
        self.assertEqual(lines, ["as it was"])
        self.assertEqual(before, {p: (p.lstat().st_mode, p.lstat().st_mtime_ns, p.lstat().st_ctime_ns) for p in self.share.rglob("*")})
        self.assertEqual((self.share / "file").read_text(), "as it was")

    def test_many_files(self):
        """Made by the host and by the guest, listed and read by the other, by several processes at a time."""
        for i in range(1000):
            (self.share / f"host-{i}").write_text(str(i))
        lines = self.script("ls | wc -l; cat host-* | md5sum; for p in 1 2 3 4; do (mkdir d$p; i=0; while [ $i -lt 250 ]; do echo $p.$i > d$p/$i; "
                            "i=$((i + 1)); done) & done; wait; find . -type f | wc -l; rm host-*", cpus=2)
        names = sorted(f"host-{i}" for i in range(1000))
        self.assertEqual(lines, ["1000", hashlib.md5("".join(n[5:] for n in names).encode()).hexdigest() + "  -", "2000"])
        self.assertEqual(sorted(p.read_text() for p in self.share.rglob("*") if p.is_file()),
                         sorted(f"{p}.{i}\n" for p in range(1, 5) for i in range(250)))

    def test_programs(self):
        """
        Programs run from the share, in a guest with so little memory that pages of one are soon another's: code that the back end has read into a page
        replaces what was translated from it. The guest does not clear the pages before: that would tell the engine.
        """
        expected = b""
        for i in range(16):
            data, result = program(i)
            (self.share / f"p{i:02}").write_bytes(data)
            (self.share / f"p{i:02}").chmod(MODE)
            expected += result
        rounds = 4
        lines = self.script(f"for r in $(seq {rounds}); do for p in p*; do ./$p >> /tmp/out || echo $p fails; echo 1 > /proc/sys/vm/drop_caches; done; "
                            "done; md5sum < /tmp/out", memory="96M", append="init_on_alloc=0")
        self.assertEqual(lines, [hashlib.md5(expected * rounds).hexdigest() + "  -"])

    def test_program_replaced(self):
        """The same file gets other code, by the host, while the guest runs it again and again."""
        first, one = program(100)
        second, two = program(200)
        (self.share / "first").write_bytes(first)
        (self.share / "second").write_bytes(second)
        lines = self.script("for r in $(seq 10); do for f in first second; do cp $f prog; chmod 755 prog; ./prog >> /tmp/out; ./prog >> /tmp/out; "
                            "echo 1 > /proc/sys/vm/drop_caches; ./prog >> /tmp/out; done; done; md5sum < /tmp/out", append="init_on_alloc=0")
        self.assertEqual(lines, [hashlib.md5((one * 3 + two * 3) * 10).hexdigest() + "  -"])

    def test_back_end_dies(self):
        """Requests fail, one line says why, the guest goes on; nothing of the back end is left."""
        (self.share / "file").write_text("there")
        script = ("#!/bin/busybox sh\nmount -t virtiofs data /mnt && cat /mnt/file && echo && echo mounted; while cat /mnt/file >/dev/null 2>&1; do "
                  "sleep 0.1; echo 3 > /proc/sys/vm/drop_caches; done; cat /mnt/file; ls /mnt; echo goes on\n")
        terminal = harness.Terminal(*guest.arguments(self.dir, "/test/run", {"test/run": script.encode()},
                                                     options=["--share", f"{self.share},tag=data"]))
        self.addCleanup(terminal.close)
        terminal.expect("mounted", guest.PATIENCE)
        back_ends = [p for p in children(terminal.process.pid) if "virtiofsd" in Path(f"/proc/{p}/comm").read_text()]
        self.assertEqual(len(back_ends), 1)
        os.kill(back_ends[0], signal.SIGKILL)
        terminal.expect("share0: virtiofsd has ended \\(signal 9[^\r\n]*; its requests fail from now on", guest.PATIENCE)
        terminal.expect("Input/output error", guest.PATIENCE)
        terminal.expect("goes on", guest.PATIENCE)
        terminal.until(lambda: not children(terminal.process.pid), "no child is left")
        self.assertEqual(terminal.wait(guest.PATIENCE), 0)

    def test_ends_with_the_vm(self):
        """Its back end, too, whichever way it ends."""
        for signo in (signal.SIGTERM, signal.SIGKILL):
            terminal = harness.Terminal("run", "--kernel", self.kernel("idle"), "--share", f"{self.share},tag=data")
            self.addCleanup(terminal.close)
            terminal.expect("ready")
            back_ends = children(terminal.process.pid)
            back_ends += [c for p in back_ends for c in children(p)]
            self.assertTrue(back_ends)
            terminal.process.send_signal(signo)
            terminal.wait()
            terminal.until(lambda pids=back_ends: not any(runs(p) for p in pids), "the back end has ended")

    @unittest.skipUnless(os.geteuid() == 0 and Path("/usr/bin/setpriv").exists(), "only root can be somebody else")
    def test_without_root(self):
        """Somebody without rights, with and without further groups: the guest's root is that user."""
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        self.dir.chmod(0o755)
        os.chown(self.share, 65534, 65534)
        script = b"#!/bin/busybox sh\nmount -t virtiofs data /mnt && cd /mnt && echo written > file && stat -c '%u %g' file\n"
        arguments = guest.arguments(self.dir, "/test/run", {"test/run": script}, options=["--share", f"{self.share},tag=data"])
        (self.dir / "initrd.img").chmod(0o644)
        result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", harness.VIREO, *map(str, arguments)],
                                stdin=subprocess.DEVNULL, capture_output=True, timeout=guest.PATIENCE, check=False)
        if b"refuses that" in result.stderr:
            self.skipTest("the host gives no user namespaces to users")
        if b"Permission denied" in result.stderr:
            self.skipTest("the build is not readable by others")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"0 0\r\n", result.stdout)
        self.assertEqual((self.share / "file").stat().st_uid, 65534)

    def test_refused(self):
        """One line each, and nothing is started."""
        for spec, words in [(str(self.share), "tag="), (f"{self.dir}/no,tag=x", "No such file"), (f"{self.kernel('idle')},tag=x", "no directory"),
                            (f"{self.share},tag=x,virtiofsd=/no", "'/no'"), (f"socket={self.dir}/no,tag=x", "No such file")]:
            result = self.run_vireo("run", "--kernel", self.kernel("idle"), "--share", spec)
            self.one_line(result, result.returncode or 1, words)


if __name__ == "__main__":
    harness.main()
