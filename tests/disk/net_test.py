"""
Disks that servers have, under servers that are killed, started again, silent, or not what they were.

usage: net_test.py VIREO WRITER VOLATILE [TEST...]
"""

import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
WRITER = Path(sys.argv.pop(2)).resolve()
VOLATILE = Path(sys.argv.pop(2)).resolve()
import harness  # pylint: disable=wrong-import-position
import servers  # pylint: disable=wrong-import-position

servers.VOLATILE = VOLATILE

BLOCKS = 2048  # of 4 KiB, that the writer works on


class Writer:
    """A writer that works on a disk until it is told to stop."""

    def __init__(self, case, disk, writes=10**12, name="record"):
        self.record = case.dir / name
        self.process = subprocess.Popen([WRITER, "write", self.record, str(BLOCKS), str(writes), disk], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        case.addCleanup(self.close)

    def close(self):
        """Ends it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def counters(self):
        """Writes, reads, flushes and errors so far."""
        try:
            data = self.record.read_bytes()[:40]
        except FileNotFoundError:
            data = b""
        return struct.unpack("<QQQQQ", data.ljust(40, b"\0"))[1:]

    def expect_more(self, flushes=3, meanwhile=lambda: None):
        """Waits until so many more flushes have been acknowledged."""
        start, until = self.counters()[2], time.monotonic() + harness.PATIENCE
        while self.counters()[2] < start + flushes:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"no more flushes: {self.counters()} {self.finish()}")
            meanwhile()
            time.sleep(0.005)

    def finish(self):
        """Tells it to stop: its status, and what it printed."""
        self.process.terminate()
        text = self.process.communicate(timeout=harness.PATIENCE)[0]
        return self.process.returncode, text


class Cases:
    """What holds for each protocol."""

    kind = None

    def setUp(self):
        super().setUp()
        if self.kind.missing:
            self.skipTest(self.kind.missing)
        self.server = self.kind(self.dir)
        self.addCleanup(self.server.kill)
        self.server.start()

    def disk(self, timeout=None, **kwargs):
        """The disk as --disk takes it."""
        return self.server.url(**kwargs) + (f",timeout={timeout}" if timeout else "")

    def test_killed(self):
        """A server that is killed and started again under load loses nothing that was acknowledged: kept are writes that no flush has covered."""
        writer = Writer(self, self.disk())
        for _ in range(4):
            writer.expect_more()
            self.server.kill()
            self.server.start()
        writer.expect_more()
        status, text = writer.finish()
        self.assertEqual(status, 0, text)
        self.assertGreaterEqual(len(re.findall("connected again", text)), 4, text)
        self.assertGreater(sum(int(n) for n in re.findall(r"; (\d+) writes that no flush", text)), 0, text)
        if not self.server.own_cache:
            self.assertGreater(self.server.lost, 0)

    def test_killed_both(self):
        """When writer and server are killed, what was flushed is there."""
        writer = Writer(self, self.disk())
        for _ in range(2):
            writer.expect_more()
        writer.process.kill()
        self.server.kill()
        self.server.start()
        result = subprocess.run([WRITER, "verify", writer.record, self.disk()], capture_output=True, text=True, timeout=harness.PATIENCE, check=False)
        self.assertNotIn("wrong\n", result.stdout.replace(" 0 wrong\n", ""), result.stdout)
        self.assertIn(result.returncode, (0, 3), result.stdout + result.stderr)

    def test_gone(self):
        """Requests to a server that stays away fail after the time-out, and go on when it is back."""
        writer = Writer(self, self.disk(timeout=1))
        writer.expect_more()
        self.server.kill()
        until = time.monotonic() + harness.PATIENCE
        while writer.counters()[3] < 20:
            self.assertLess(time.monotonic(), until, "no request fails")
            time.sleep(0.01)
        self.server.start()
        writer.expect_more()
        status, text = writer.finish()
        self.assertEqual(status, 3, text)
        self.assertIn("a request failed: Connection timed out", text)
        self.assertRegex(text, r"disk '[^']*': not reached for 1 s")

    def test_silent(self):
        """A server that accepts and says nothing is as good as none, and one that goes on is used again."""
        writer = Writer(self, self.disk(timeout=2))
        writer.expect_more()
        self.server.signal(signal.SIGSTOP)
        until = time.monotonic() + harness.PATIENCE
        while writer.counters()[3] < 1:
            self.assertLess(time.monotonic(), until, "no request fails")
            time.sleep(0.01)
        self.server.signal(signal.SIGCONT)
        # nbdkit may end itself when the connections that waited for it are gone by the time it takes them.
        writer.expect_more(meanwhile=self.server.revive)
        status, text = writer.finish()
        self.assertIn(status, (0, 3), text)
        self.assertIn("does not answer", text)
        if isinstance(self.server, servers.Nbd):  # nothing comes late, over what is written by the next connection
            self.assertIn("has not let go of the connection before", text)

    def test_size(self):
        """A server that is back with another size is refused, until it has the right one again."""
        writer = Writer(self, self.disk(timeout=int(harness.PATIENCE / 2)))
        writer.expect_more()
        self.server.kill()
        self.server.resize(self.server.size // 2)
        self.server.start()
        time.sleep(0.5)
        self.server.kill()
        self.server.resize(self.server.size)
        self.server.start()
        writer.expect_more()
        text = writer.finish()[1]
        self.assertRegex(text, rf"the server is back with {self.server.size // 2} bytes where it had {self.server.size}: it is refused")

    def refused(self, disk, pattern, statuses=(2,)):
        """vireo does not open the disk, and says why in one line."""
        path, _, options = disk.partition(",")
        result = self.run_vireo("disk", "info", path, *([f"--{options}"] if options else []), text=True)
        self.assertIn(result.returncode, statuses, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertRegex(result.stderr, pattern)

    def refuse_second(self, reason):
        """Who comes while somebody writes is refused, and does not disturb."""
        writer = Writer(self, self.disk())
        writer.expect_more()
        other = Writer(self, self.disk(), name="other")
        text = other.process.communicate(timeout=harness.PATIENCE)[0]
        self.assertEqual(other.process.returncode, 2, text)
        self.assertIn(reason, text)
        self.assertEqual(writer.finish()[0], 0)

    def test_refused(self):
        """Nobody there: one line, status 2; so at the start of a VM."""
        self.refused(self.server.url(port=servers.free_port()), "refused")
        result = self.run_vireo("run", "--kernel", self.kernel("idle"), "--disk", self.server.url(port=servers.free_port()), text=True)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, "^vireo: [^\n]*refused[^\n]*\n$")

    def test_convert(self):
        """An image goes there and comes back, as raw and as qcow2."""
        path = self.server.url().partition(",")[0]
        source = self.dir / "source.raw"
        source.write_bytes(b"begin".ljust(1 << 20, b"x") + bytes(6 << 20) + b"end".rjust(1 << 20, b"y") + bytes(self.server.size - (8 << 20)))
        for form in ("raw", "qcow2"):
            with self.subTest(form):
                if form == "qcow2" and not isinstance(self.server, servers.Nfs):
                    continue  # its tables would need more room than there is
                back = self.dir / f"back.{form}"
                for words in ((source, path, "--to-format", "raw", "--replace"), (path, back, "--format", "raw")):
                    result = self.run_vireo("disk", "convert", *words, "--quiet", text=True)
                    self.assertEqual(result.returncode, 0, result.stderr)
                result = self.run_vireo("disk", "compare", source, back, text=True)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_info(self):
        """Its size is what the server says."""
        path, _, options = self.server.url().partition(",")
        result = self.run_vireo("disk", "info", path, *([f"--{options}"] if options else []), text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, rf"\b{self.server.size}\b|16\.?0* MiB")


class Nbd(Cases, harness.Case):
    """nbdkit."""

    kind = servers.Nbd

    def test_export(self):
        """An export that there is not."""
        self.refused(self.server.url(export="other"), "other")

    def use(self, kind):
        """Another server in this one's place: killed once under load; a disk goes there and comes back."""
        self.server.kill()
        self.server = kind(self.dir)
        self.addCleanup(self.server.kill)
        self.server.start()
        writer = Writer(self, self.disk())
        writer.expect_more()
        self.server.kill()
        self.server.start()
        writer.expect_more()
        status, text = writer.finish()
        self.assertEqual(status, 0, text)
        self.assertIn("connected again", text)
        self.test_info()

    def test_unix(self):
        """Over a Unix socket."""
        self.use(servers.NbdUnix)
        self.refused(self.server.url(export="other"), "other")

    def test_tls(self):
        """Over TLS; who has other keys, or none, is not let in."""
        config = subprocess.run(["nbdkit", "--dump-config"], capture_output=True, text=True, check=False).stdout
        if "tls=yes" not in config:
            self.skipTest("needs an nbdkit with TLS")
        self.use(servers.NbdTls)
        # The library tells no more of it than that it did not work.
        self.refused(self.server.url(keys="wrong"), "(?i)tls", (1, 2))
        plain = self.server.url().replace("nbds://alice@", "nbd://")
        self.refused(plain.replace(f"?tls-psk-file={self.dir / 'keys'}", ""), "(?i)tls", (1, 2))

    def test_read_only(self):
        """A server that lets nobody write."""
        self.server.kill()
        self.server.arguments = [*self.server.arguments, "-r"]
        self.server.start()
        writer = Writer(self, self.disk())
        text = writer.process.communicate(timeout=harness.PATIENCE)[0]
        self.assertEqual(writer.process.returncode, 2)
        self.assertIn("lets nobody write", text)


class Iscsi(Cases, harness.Case):
    """tgtd."""

    kind = servers.Iscsi

    def test_target(self):
        """A target, and a LUN, that there is not."""
        self.refused(self.server.url(target="iqn.2026-11.invalid.vireo:other"), "[Tt]arget not found")
        self.refused(self.server.url(lun=7), "has no LUN 7")

    def test_password(self):
        """A user that the target does not know; the password is in no message."""
        self.server.kill()
        self.server.user = ("alice", "correct-horse-1")
        self.server.start()
        self.refused(self.server.url(), "(?i)auth")
        self.refused(self.server.url(user="alice%wrong-horse-22"), "(?i)auth")
        result = self.run_vireo("disk", "info", self.server.url(user="alice%wrong-horse-22").split(",")[0], "--format", "raw", text=True)
        self.assertNotIn("wrong-horse", result.stderr)
        self.server.user = None

    def test_reserved(self):
        """A second writer is refused."""
        self.refuse_second("another initiator has reserved it")


class Nfs(Cases, harness.Case):
    """nfs-ganesha."""

    kind = servers.Nfs

    def test_path(self):
        """A file that there is not, and one that is none."""
        self.refused(self.server.url(path="/export/other.raw"), "No such file")
        self.refused(self.server.url(path="/export"), "no regular file")

    def test_grace(self):
        """A server that lets nobody in for a minute after its start has us back at once."""
        self.server.kill()
        self.server.grace = 120
        self.server.start()
        writer = Writer(self, self.disk())
        writer.expect_more()
        self.server.kill()
        self.server.start()
        writer.expect_more()
        status, text = writer.finish()
        self.assertEqual(status, 0, text)

    def test_locked(self):
        """A second writer is refused."""
        self.refuse_second("the file is locked")


if __name__ == "__main__":
    harness.main()
