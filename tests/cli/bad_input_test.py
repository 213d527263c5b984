"""Wrong use and bad files: one line that names the thing, the value and what is accepted; nothing left behind."""

import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

# Arguments, and words that the line must hold. All of them are wrong use.
WRONG = [
    ([], ["command", "--help"]),
    (["rum"], ["'rum'", "did you mean run"]),
    (["frobnicate"], ["'frobnicate'"]),
    (["--frobnicate"], ["'--frobnicate'"]),
    (["run", "kernel"], ["'kernel'", "--"]),
    (["run", "-k"], ["'-k'"]),
    (["run", "--"], ["'--'"]),
    (["run", "--="], ["--"]),
    (["run", "--memroy", "1G"], ["--memroy", "did you mean --memory"]),
    (["run", "--mem=1G"], ["--mem:", "did you mean --memory"]),
    (["run", "--frobnicate"], ["--frobnicate", "--help"]),
    (["run", "--" + "x" * 5000], ["--xxx"]),
    (["run", "--new\nline"], ["--new?line"]),
    (["run", "--memory"], ["--memory", "SIZE"]),
    (["run", "--no-reboot=1"], ["--no-reboot", "'1'", "no value"]),
    (["run", "--debug-exit", "5"], ["'5'"]),
    (["run", "--engine", "warp"], ["--engine", "'warp'", "auto|", "interp"]),
    (["run", "--engine="], ["--engine", "''", "auto|", "interp"]),
    (["run", "--engine", "auto|interp"], ["--engine", "'auto|interp'"]),
    (["run", "--console", "screen"], ["--console", "'screen'", "stdio|pty|none|file:PATH|unix:PATH"]),
    (["run", "--console", "file:"], ["--console", "'file:'", "file:PATH"]),
    (["run", "--console", "stdio:x"], ["--console", "'stdio:x'"]),
    (["run", "--console="], ["--console", "''"]),
    (["run", "--kernel="], ["--kernel", "''"]),
    (["run", "--stats="], ["--stats", "''"]),
    *((["run", "--gdb", spec], ["--gdb", f"'{spec}'", "tcp:HOST:PORT|unix:PATH"]) for spec in (
        "", "1234", "tcp:", "tcp:1234", "tcp::1234", "tcp:host:", "tcp:host:65536", "tcp:host:1x", "tcp:host:-1", "unix:", "unix:,nowait",
        "udp:host:1", "tcp:host:1,wait")),
    *((["run", "--lockstep", spec], ["--lockstep", f"'{spec}'", "interp", "every=BLOCKS", "memory=INSTRUCTIONS", "from=SECONDS"])
      for spec in ("", "warp", "interp,", "interp,,every=1", "interp,every", "interp,every=", "interp,every=0", "interp,every=4294967296",
                   "interp,memory=-1", "interp,from=x", "interp,until=1", "interp every=1")),
    *((["run", "--trace", kinds], ["--trace", f"'{kinds}'", "blocks|exits|irq"])
      for kinds in ("", "all", "block", "exits,", ",exits", "exits,,irq", "exits|irq", "exits, irq", "EXITS")),
    (["run", "--trace-file", "x"], ["--trace-file", "'x'", "--trace"]),
    (["run", "--trace", "irq", "--trace-file", "/nonexistent/x"], ["--trace-file", "'/nonexistent/x'", "No such file"]),
    (["run", "--lockstep", "interp", "--cpus", "2"], ["--lockstep", "--cpus 2", "one CPU"]),
    (["run", "--lockstep", "interp", "--gdb", "tcp:localhost:1"], ["--lockstep", "--gdb", "tcp:localhost:1"]),
    (["run", "--memory", "8M", "--cpus", "x"], ["--cpus", "'x'"]),
]
SIZES = ["", "0", "-1", "1Q", "512", "M", "1.5G", "1 G", "1GG", "1GiB", "0x1000000", "4095", "1048577", "1023K", "513G",
         "1T", "99999999999999999999", "18446744073709551615", "16777216T", "1M\n", "+1G", "\u0661G"]
CODE_SIZES = ["", "0", "-1", "1Q", "M", "1.5M", "1 M", "1MiB", "1048575", "1023K", "4097M", "4294967297", "5G", "1T",
              "99999999999999999999", "16777216T", "0x100000", "+1M"]
CPUS = ["", "0", "-1", "17", "1.5", "two", "99999999999999999999", "4294967297", "0x1"]
SECONDS = ["", "0", "-1", "1s", ".5", "1.", "0.0", "inf", "nan", "1e3", "1000000001", "99999999999999999999"]


class BadInput(harness.Case):
    """Each refused before a guest runs."""

    def refused(self, args, words, status=2):
        """Both the line and that nothing was made in the current directory."""
        with self.subTest(args=[str(a)[:80] for a in args]):
            if "--kernel" in args:  # should it start a guest after all, say so soon
                args = [*args, "--timeout", "5"]
            self.one_line(self.run_vireo(*args, cwd=self.dir), status, *words)

    def test_wrong_use(self):
        """Commands, options and their values."""
        for args, words in WRONG:
            self.refused(args, words)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_numbers(self):
        """Sizes, counts and times, as two words and as one."""
        for option, values in (("--memory", SIZES), ("--code-cache", CODE_SIZES), ("--cpus", CPUS), ("--timeout", SECONDS)):
            for value in values:
                shown = f"'{value}'".replace("\n", "?")
                if value.isascii():
                    self.refused(["run", option, value], [option, shown, "accepted"])
                self.refused(["run", f"{option}={value}"], [option, "accepted"])

    def test_kernels(self):
        """Files that are no kernel, or cannot be read."""
        good = self.kernel("idle").read_bytes()
        contents = {
            "empty": b"", "one-byte": b"\x7f", "text": b"hello\n" * 1000, "zeroes": bytes(100000),
            "noise": os.urandom(100000), "elf-header": good[:52], "elf-cut": good[:100], "half": good[:len(good) // 2],
            "script": b"#!/bin/sh\nexit 0\n",
        }
        for name, content in contents.items():
            (self.dir / name).write_bytes(content)
            self.refused(["run", "--kernel", name], [name])
        (self.dir / "directory").mkdir()
        for name in ("absent", "directory", "text/below", "/dev/null", "x" * 300):
            self.refused(["run", "--kernel", name], [name[:50]])
        (self.dir / "fifo").touch()
        (self.dir / "fifo").unlink()
        os.mkfifo(self.dir / "fifo")
        self.refused(["run", "--kernel", "fifo"], ["fifo"])
        if os.geteuid() != 0:
            (self.dir / "secret").write_bytes(good)
            (self.dir / "secret").chmod(0)
            self.refused(["run", "--kernel", "secret"], ["secret"])

    def test_initrds(self):
        """A kernel that is right with an initrd that is not."""
        kernel = self.kernel("idle")
        (self.dir / "empty").touch()
        (self.dir / "directory").mkdir()
        for name in ("absent", "empty", "directory"):
            self.refused(["run", "--kernel", kernel, "--initrd", name], [name])
        with open(self.dir / "large", "wb") as file:
            file.truncate(64 << 20)
        self.refused(["run", "--kernel", kernel, "--initrd", "large", "--memory", "32M"], ["large"])

    def test_memory_too_small(self):
        """The kernel does not fit."""
        kernel = self.dir / "large"
        data = bytearray(harness.elf(harness.CODE["idle"]))
        data[52 + 20:52 + 24] = (64 << 20).to_bytes(4, "little")  # p_memsz
        kernel.write_bytes(data)
        self.refused(["run", "--kernel", kernel, "--memory", "16M"], [kernel])

    def test_unwritable(self):
        """Consoles and statistics that cannot be written."""
        kernel = self.kernel("idle")
        (self.dir / "plain").touch()
        (self.dir / "directory").mkdir()
        for path in ("absent/file", "directory", "plain/file", "/proc/vireo"):
            self.refused(["run", "--kernel", kernel, "--console", f"file:{path}"], [path])
            self.refused(["run", "--kernel", kernel, "--stats", path], ["--stats", path])
        for path in ("absent/socket", "plain", "directory", "x" * 200):
            self.refused(["run", "--kernel", kernel, "--console", f"unix:{path}"], [path[:50]])
            self.refused(["run", "--kernel", kernel, "--gdb", f"unix:{path}"], ["--gdb", path[:50]])
        self.assertEqual(sorted(p.name for p in self.dir.iterdir()), ["directory", "idle", "plain"])

    def test_port_in_use(self):
        """And a host that is none."""
        kernel = self.kernel("idle")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.refused(["run", "--kernel", kernel, "--gdb", f"tcp:127.0.0.1:{port}"], ["--gdb", f"port {port}", "in use"])
        self.refused(["run", "--kernel", kernel, "--gdb", "tcp:999.0.0.1:1"], ["--gdb", "'999.0.0.1'"])

    def test_help_and_version(self):
        """What is right is not refused, and a full disk is noticed."""
        for args in (["--help"], ["run", "--help"], ["run", "--cpus", "2", "-h"], ["engines", "--help"], ["--version"]):
            result = self.run_vireo(*args)
            self.assertEqual((result.returncode, result.stderr), (0, b""))
            self.assertTrue(result.stdout.endswith(b"\n"))
        self.assertRegex(self.run_vireo("--version").stdout.decode(), r"^vireo \d+\.\d+\.\d+ \(commit [0-9a-f]{7,}(-dirty)?|unknown\)\n$")
        text = self.run_vireo("run", "--help").stdout.decode()
        for word in ("--engine auto|", "--memory SIZE", "--no-reboot\n", "unix:PATH", "Ctrl-A x", "(v << 1) | 1"):
            self.assertIn(word, text.replace("--no-reboot ", "--no-reboot\n"))
        with open("/dev/full", "wb") as full:
            result = harness.subprocess.run([harness.VIREO, "run", "--help"], stdout=full, stderr=-1, check=False)
        self.assertEqual(result.returncode, 1)


if __name__ == "__main__":
    harness.main()
