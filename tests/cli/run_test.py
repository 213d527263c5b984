"""`vireo run` from outside: exit statuses, the terminal, consoles, statistics, privileges. Guests of a few instructions."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position


class Ends(harness.Case):
    """How a VM ends is the exit status."""

    def test_reset(self):
        """A reset under --no-reboot; without it, the guest starts again."""
        result = self.run_vireo("run", "--kernel", self.kernel("reset"), "--no-reboot")
        self.one_line(result, 3, "reset")
        result = self.run_vireo("run", "--kernel", self.kernel("reset"), "--timeout", "2")
        self.one_line(result, 4, "--timeout")
        self.assertGreater(result.stdout.count(b"ready\r\n"), 1)

    def test_crash(self):
        """One line, then the registers."""
        result = self.run_vireo("run", "--kernel", self.kernel("crash"))
        lines = result.stderr.decode().splitlines()
        self.assertEqual(result.returncode, 3)
        self.assertRegex(lines[0], "^vireo: .*triple fault")
        self.assertRegex("\n".join(lines[1:]), r"(?s)rip .*rax .*cr3 ")

    def test_debug_exit(self):
        """Port 0xf4 is there on request only."""
        kernel = self.kernel("debug")
        self.assertEqual(self.run_vireo("run", "--kernel", kernel, "--debug-exit").returncode, 0x15 << 1 | 1)
        self.assertEqual(self.run_vireo("run", "--kernel", kernel, "--timeout", "1").returncode, 4)

    def test_flood(self):
        """A guest that floods a console nobody reads waits, and can be ended."""
        read, write = os.pipe()
        process = subprocess.Popen([harness.VIREO, "run", "--kernel", self.kernel("flood")], stdout=write,
                                   stdin=subprocess.DEVNULL)
        os.close(write)
        time.sleep(1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        self.assertLess(int(status.split("RssAnon:")[1].split()[0]), 32 << 10)
        process.terminate()
        self.assertEqual(process.wait(harness.PATIENCE), -signal.SIGTERM)
        os.close(read)

    def test_reader_gone(self):
        """Nobody can see the console any more: an error, not a signal."""
        read, write = os.pipe()
        process = subprocess.Popen([harness.VIREO, "run", "--kernel", self.kernel("flood")], stdout=write, stderr=-1,
                                   stdin=subprocess.DEVNULL)
        os.close(write)
        os.read(read, 1)
        os.close(read)
        self.assertIn(b"standard output", process.communicate(timeout=harness.PATIENCE)[1])
        self.assertEqual(process.returncode, 1)

    def test_closed_standard_fds(self):
        """Nothing that vireo opens takes their place."""
        kernel = self.kernel("idle")
        for closed in ("<&-", ">&-", "<&- >&- 2>&-"):
            result = subprocess.run(f"exec {harness.VIREO} run --kernel {kernel} --timeout 0.5 {closed}", shell=True,
                                    capture_output=True, timeout=harness.PATIENCE, check=False)
            self.assertEqual(result.returncode, 4, closed)


class OnTerminal(harness.Case):
    """The terminal is raw while the guest runs, and as it was found at every end."""

    def start(self, kernel, *args):
        """A vireo that has said "ready"."""
        terminal = harness.Terminal("run", "--kernel", self.kernel(kernel), *args)
        self.addCleanup(terminal.close)
        terminal.expect("ready")
        self.assertTrue(terminal.is_raw())
        return terminal

    def restored(self, terminal):
        """Waits: after SIGKILL it is another process that restores it."""
        terminal.until(lambda: terminal.modes() == terminal.before, "the terminal is restored")

    def test_signals(self):
        """Those that vireo handles, and those that it cannot."""
        for signo in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGSEGV,
                      signal.SIGABRT):
            with self.subTest(signal=signo.name):
                terminal = self.start("idle")
                terminal.process.send_signal(signo)
                # A sanitizer makes an exit of 1 of a crash.
                self.assertIn(terminal.wait(), (-signo, 1) if signo == signal.SIGSEGV else (-signo,))
                self.restored(terminal)

    def test_time_out(self):
        """The terminal is restored before the line is printed."""
        terminal = self.start("idle", "--timeout", "1.5")
        self.assertEqual(terminal.wait(), 4)
        self.restored(terminal)

    def test_translator_fails(self):
        """Translated code that traps on the host: status 1, and a report whose lines a raw terminal shows as such."""
        trace = self.dir / "trace"
        terminal = self.start("count", "--engine", "bt", "--trace", "exits", "--trace-file", trace)
        fds = Path(f"/proc/{terminal.process.pid}/fd")
        ram = os.open(next(fd for fd in fds.iterdir() if "memfd:guest-ram" in os.readlink(fd)), os.O_RDWR)
        terminal.until(lambda: int.from_bytes(os.pread(ram, 4, 0x200000), "little") > 1000, "the guest counts")
        os.ftruncate(ram, 0)
        os.close(ram)
        self.assertEqual(terminal.wait(), 1)
        self.restored(terminal)
        terminal.expect(r"vireo: CPU 0: internal error of the translator: SIGBUS \(.*\) in translated code, host RIP 0x")
        report = terminal.expect(r"(?s)(.*)Please report it.*command line\.(\r?)\n")
        self.assertEqual(report[2], "\r")
        self.assertRegex(report[1], r"\nrip  0{10}1\w{5} ")
        self.assertRegex(report[1], r"\n +1\w{5}  inc \[0x00200000\]\r\n")
        self.assertEqual(len([line for line in report[1].splitlines() if line.startswith("=>")]), 1)
        self.assertNotRegex(report[1], r"[^\r]\n")
        traced = trace.read_text().partition("vireo: ")
        self.assertRegex(traced[0], r"cpu 0 exit pio_out 0x3f8 at [^\n]*\n$")
        self.assertTrue(traced[2].endswith(report[0].replace("\r", "")))

    def test_keys(self):
        """Ctrl-A; everything else, Ctrl-C among it, is the guest's."""
        terminal = self.start("echo")
        terminal.type("\x01h")
        terminal.expect("Ctrl-A x")
        terminal.type("a\x03\x04\x1a\x01\x01b")
        terminal.expect("a\x03\x04\x1a\x01b")
        terminal.type("\x01x")
        self.assertEqual(terminal.wait(), 0)
        self.restored(terminal)

    def test_stop_and_continue(self):
        """Stopped: the terminal is the shell's. Continued: raw again."""
        terminal = self.start("echo")
        stat = Path(f"/proc/{terminal.process.pid}/stat")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.until(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", "vireo stops")
        self.restored(terminal)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(terminal.is_raw, "the terminal is raw again")
        terminal.type("still")
        terminal.expect("still")

    def test_hanging_guest(self):
        """Ctrl-A x ends a guest that takes no input, whatever was typed before."""
        terminal = self.start("idle")
        for _ in range(100):
            terminal.type("x" * 100)
        terminal.type("\x01x")
        self.assertEqual(terminal.wait(), 0)


class Consoles(harness.Case):
    """The other backends."""

    def test_file(self):
        """Output alone."""
        path = self.dir / "console"
        self.run_vireo("run", "--kernel", self.kernel("idle"), "--console", f"file:{path}", "--timeout", "1")
        self.assertEqual(path.read_bytes(), b"ready\r\n")

    def test_unix(self):
        """A client talks to the guest; the socket goes with vireo."""
        path = self.dir / "socket"
        process = subprocess.Popen([harness.VIREO, "run", "--kernel", self.kernel("echo"), "--console", f"unix:{path}"])
        self.addCleanup(process.kill)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(harness.PATIENCE)
        limit = time.monotonic() + harness.PATIENCE
        while client.connect_ex(str(path)) != 0:
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.01)
        got = b""
        while not got.endswith(b"ready\r\n"):
            got += client.recv(100)
        client.sendall(b"ping")
        while not got.endswith(b"ping"):
            got += client.recv(100)
        process.terminate()
        self.assertEqual(process.wait(harness.PATIENCE), -signal.SIGTERM)
        self.assertFalse(path.exists())
        client.close()


class Statistics(harness.Case):
    """--stats FILE."""

    def stats(self, path, engine="interp"):
        """Runs with it."""
        return self.run_vireo("run", "--kernel", self.kernel("debug"), "--debug-exit", "--cpus", "2", "--engine", engine, "--stats", path)

    def test_contents(self):
        """Exits by reason, instructions, time by place, memory."""
        path = self.dir / "stats.json"
        path.write_text("old")
        self.assertEqual(self.stats(path).returncode, 0x2B)
        stats = json.loads(path.read_text())
        self.assertEqual((stats["end"], stats["status"], stats["cpus"]), ("debug", 0x2B, 2))
        self.assertEqual(stats["exits"]["pio_out"], 1)
        self.assertLessEqual(set(stats["exits_ns"]), {"pio_in", "pio_out", "mmio_read", "mmio_write", "hlt"})
        self.assertGreater(stats["exits_ns"]["pio_out"], 0)  # the first access is a sample
        self.assertGreater(stats["instructions"], 0)
        self.assertEqual(set(stats["time_ns"]), {"guest", "translator", "interpreter", "device", "halted"})
        memory = stats["memory_bytes"]
        self.assertEqual(set(memory), {"peak", "guest", "own", "files"})
        self.assertGreater(memory["guest"], 0)
        self.assertGreater(memory["own"], 0)
        self.assertLess(memory["own"], memory["peak"])
        self.assertEqual(len(stats["vcpus"]), 2)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), ["debug", "stats.json"])

    def test_interpreted(self):
        """A translator tells which instructions it interpreted: here the one that ends the guest."""
        path = self.dir / "stats.json"
        for engine, untranslated in (("interp", {}), ("bt", {"out": 1})):
            self.assertEqual(self.stats(path, engine).returncode, 0x2B)
            stats = json.loads(path.read_text())
            self.assertEqual((stats["untranslated"], stats["slow"]), (untranslated, {}), engine)

    def test_no_file_without_end(self):
        """A vireo that is killed leaves nothing half-written."""
        process = subprocess.Popen([harness.VIREO, "run", "--kernel", self.kernel("idle"), "--stats", self.dir / "s"],
                                   stdin=subprocess.DEVNULL, stdout=-1)
        process.stdout.readline()
        process.kill()
        process.communicate()
        self.assertEqual([p.name for p in self.dir.iterdir()], ["idle"])

    def test_full_disk(self):
        """One line, status 1."""
        self.one_line(self.stats("/dev/full"), 1, "--stats", "/dev/full")

    @harness.unittest.skipIf(os.geteuid() != 0, "mounting a small file system takes root")
    def test_full_file_system(self):
        """The same where the file would be made, and what was there stays."""
        mount = self.dir / "mount"
        mount.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", mount], capture_output=True, check=False)
        if made.returncode != 0:
            self.skipTest("mount is not permitted here")
        try:
            (mount / "stats.json").write_text("old")
            with open(mount / "fill", "wb", buffering=0) as fill:
                try:
                    fill.write(bytes(1 << 20))
                    fill.write(bytes(1 << 20))
                except OSError:
                    pass
            self.one_line(self.stats(mount / "stats.json"), 1, "--stats", "stats.json")
            self.assertEqual((mount / "stats.json").read_text(), "old")
            self.assertEqual(sorted(p.name for p in mount.iterdir()), ["fill", "stats.json"])
        finally:
            subprocess.run(["umount", mount], check=True)


class Unprivileged(harness.Case):
    """An ordinary user without capabilities."""

    def test_nobody(self):
        """setpriv where we are root, as we are elsewhere."""
        command = []
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
                       "--no-new-privs"]
        # The tree may lie where that user may not look.
        self.dir.chmod(0o755)
        shutil.copy(harness.VIREO, self.dir / "vireo")
        kernel = self.kernel("idle")
        kernel.chmod(0o644)
        process = subprocess.Popen([*command, self.dir / "vireo", "run", "--kernel", kernel, "--cpus", "2"], cwd="/",
                                   stdin=subprocess.DEVNULL, stdout=-1, stderr=-1)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"ready\r\n", process.stderr)
        status = Path(f"/proc/{process.pid}/status").read_text()
        self.assertIn("CapEff:\t0000000000000000", status)
        self.assertNotIn("Uid:\t0", status)
        process.terminate()
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGTERM)


if __name__ == "__main__":
    harness.main()
