"""
What tests of the whole vireo share: where it is, tiny kernels, a vireo on a terminal of its own, and results as TAP.

A test program is a module of unittest.TestCase classes that ends in harness.main(). meson gives it the path of vireo.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

VIREO = Path(sys.argv[1] if len(sys.argv) > 1 else "build/src/cli/vireo").resolve()
ROOT = Path(__file__).resolve().parents[2]
GUEST = ROOT / "guest"
PATIENCE = 60 * float(os.environ.get("VIREO_TEST_SLOW", "1"))  # seconds until a test says that nothing will come any more


# ---- kernels of a few bytes: 32-bit code behind a multiboot 1 header, loaded at 1 MiB ----

LOAD = 0x100000
WAIT_TX = bytes.fromhex("66bafd03 ec a820 74fb")  # until LSR says that the transmitter is empty
WAIT_RX = bytes.fromhex("66bafd03 ec a801 74fb")
HALT = bytes.fromhex("fa f4 ebfd")  # cli; hlt for good


def put(text):
    """Code that writes text to COM1."""
    return b"".join(WAIT_TX + bytes([0xB0, byte]) + bytes.fromhex("66baf803 ee") for byte in text)


def again(code):
    """The code, for ever."""
    return code + b"\xe9" + struct.pack("<i", -(len(code) + 5))


def outb(port, value):
    """Code that writes a byte to a port."""
    return b"\x66\xba" + struct.pack("<H", port) + bytes([0xB0, value, 0xEE])


CODE = {
    "idle": put(b"ready\r\n") + HALT,
    "echo": put(b"ready\r\n") + again(WAIT_RX + bytes.fromhex("66baf803 ec") + b"\x88\xc3" + WAIT_TX +
                                      b"\x88\xd8" + bytes.fromhex("66baf803 ee")),
    "flood": again(put(b"x")),
    "reset": put(b"ready\r\n") + outb(0xCF9, 0x06) + HALT,
    "count": put(b"ready\r\n") + again(bytes.fromhex("ff05 00002000")),  # inc dword [0x200000]
    "debug": outb(0xF4, 0x15) + HALT,
    "crash": bytes.fromhex("0f011d 00000000 cc") + HALT,  # an empty IDT (zeroes at address 0), then int3
}


def elf(code):
    """An ELF32 executable with a multiboot header in front of the code."""
    magic = 0x1BADB002
    header = struct.pack("<III", magic, 0, -magic & 0xFFFFFFFF)
    start = 52 + 32
    size = start + len(header) + len(code)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    entry = LOAD + start + len(header)
    ehdr = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    phdr = struct.pack("<IIIIIIII", 1, 0, LOAD, LOAD, size, size, 7, 0x1000)
    return ehdr + phdr + header + code


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="vireo-test-")
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)
        state = tempfile.TemporaryDirectory(prefix="vireo-state-")  # which images there are is the test's own affair
        self.addCleanup(state.cleanup)
        os.environ["XDG_STATE_HOME"] = state.name

    def kernel(self, name):
        """The path of one of the kernels above."""
        path = self.dir / name
        path.write_bytes(elf(CODE[name]))
        return path

    def run_vireo(self, *args, stdin=subprocess.DEVNULL, timeout=PATIENCE, **kwargs):
        """Runs `vireo args` to its end."""
        return subprocess.run([VIREO, *map(str, args)], stdin=stdin, capture_output=True, timeout=timeout, check=False,
                              **kwargs)

    def one_line(self, result, status, *words):
        """It refused with that status, and one line on standard error that holds all words."""
        text = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, text)
        self.assertEqual(text.count("\n"), 1, text)
        self.assertTrue(text.startswith("vireo: ") and text.endswith("\n"), text)
        self.assertNotIn("\r", text)
        for word in words:
            self.assertIn(str(word), text)


class Terminal:
    """A vireo whose console is a pseudo-terminal of its own."""

    def __init__(self, *args, command=None):
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

        def become_leader():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for signo in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # a background job inherits some ignored
                signal.signal(signo, signal.SIG_DFL)

        self.process = subprocess.Popen(command or [VIREO, *map(str, args)], stdin=slave, stdout=slave, stderr=slave,
                                        preexec_fn=become_leader, close_fds=True)
        self.slave = slave  # kept, so that the terminal outlives vireo
        self.text = ""

    def modes(self):
        """The terminal's modes now."""
        return termios.tcgetattr(self.slave)

    def is_raw(self):
        """No echo, no lines, no signals from keys."""
        return not self.modes()[3] & (termios.ECHO | termios.ICANON | termios.ISIG)

    def type(self, text):
        """As if somebody typed it."""
        os.write(self.master, text.encode())

    def _read(self):
        """Takes output, and tells a program that asks where the cursor is, as a terminal does."""
        text = os.read(self.master, 65536).decode(errors="replace")
        for asked in re.findall(r"(\x1b\[999;999H)?\x1b\[6n", text):
            self.type("\x1b[24;80R" if asked else "\x1b[24;1R")
        self.text += text

    def expect(self, pattern, timeout=PATIENCE):
        """Waits for the regular expression; what came up to its end is consumed. Returns the match."""
        until = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end():]
                return match
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"no '{pattern}' within {timeout} s; last: {self.text[-2000:]!r}")
            self._read()

    def until(self, condition, what):
        """Waits until the condition holds."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > limit:
                raise AssertionError(f"not within {PATIENCE} s: {what}")
            time.sleep(0.005)

    def wait(self, timeout=PATIENCE):
        """vireo's return code; output that still comes is kept."""
        limit = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > limit:
                raise AssertionError(f"still running after {timeout} s; last: {self.text[-2000:]!r}")
            if select.select([self.master], [], [], 0.01)[0]:
                self._read()
        return self.process.returncode

    def close(self):
        """Ends vireo, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)


class _Tap(unittest.TestResult):
    """Prints each result as a line of TAP."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def _line(self, ok, test, text="", note=""):
        self.n += 1
        print(f"{'ok' if ok else 'not ok'} {self.n} - {test.id().removeprefix('__main__.')}{note}", flush=True)
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._line(True, test)

    def addError(self, test, err):
        super().addError(test, err)
        self._line(False, test, self.errors[-1][1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line(False, test, self.failures[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line(True, test, note=f" # SKIP {reason}")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._line(False, subtest, self.failures[-1][1] if self.failures else self.errors[-1][1])


def main():
    """Runs the tests of the calling module; arguments after vireo's path choose some by name."""
    loader = unittest.TestLoader()
    if len(sys.argv) > 2:
        suite = loader.loadTestsFromNames(sys.argv[2:], sys.modules["__main__"])
    else:
        suite = loader.loadTestsFromModule(sys.modules["__main__"])
    result = _Tap()
    suite.run(result)
    print(f"1..{result.n}")
    sys.exit(0 if result.wasSuccessful() else 1)
