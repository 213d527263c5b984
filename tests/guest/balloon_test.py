"""
A guest's memory goes back to the host: by the balloon when the host wants it, and by free page reporting when the guest is done with it.

usage: balloon_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import guest
import harness

MIB = 1 << 20
USED = 200 * MIB
SLACK = 40 * MIB  # what a guest does meanwhile


def resident(pid):
    """Bytes of guest RAM that the host has backed."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(fd).startswith("/memfd:guest-ram"):
            return fd.stat().st_blocks * 512
    raise AssertionError("no guest RAM")


class Balloon(harness.Case):
    """Each a guest at a prompt of its own, with 512 MiB."""

    def start(self, script, *options, append=""):
        """A guest that runs a script line by line: each line that it prints is awaited by name."""
        self.control = self.dir / "control"
        arguments = guest.arguments(self.dir, "/test/run", {"test/run": f"#!/bin/busybox sh\n{script}\n".encode()},
                                    options=["--control", f"unix:{self.control}", *options], append=append)
        terminal = harness.Terminal(*arguments)
        self.addCleanup(terminal.close)
        return terminal

    def ctl(self, *words):
        """A command to the VM; its answer."""
        result = subprocess.run([harness.VIREO, "ctl", self.control, *words], capture_output=True, timeout=harness.PATIENCE, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout) if result.stdout.strip() else {}

    def falls(self, terminal, most):
        """Waits until the guest's resident memory is down to so much; returns the seconds that took."""
        begin = time.monotonic()
        terminal.until(lambda: resident(terminal.process.pid) <= most, f"no more than {most / MIB} MiB are resident")
        return time.monotonic() - begin

    def test_reporting(self):
        """Memory of a file in RAM, and of a program that ends: given back, used anew, given back again."""
        terminal = self.start("dd if=/dev/urandom of=/dev/shm/kept bs=1M count=8 2>/dev/null; md5sum /dev/shm/kept > /run/sum; echo ready; "
                              f"for r in 1 2 3; do read x; dd if=/dev/zero of=/dev/shm/f bs=1M count={USED // MIB} 2>/dev/null; echo used $r; "
                              "read x; rm /dev/shm/f; echo freed $r; done; read x; md5sum -c /run/sum")
        terminal.expect("ready", guest.PATIENCE)
        terminal.until(lambda: resident(terminal.process.pid) < 150 * MIB, "what booting took has come back")
        before = resident(terminal.process.pid)
        for turn in (1, 2, 3):
            terminal.type("\n")
            terminal.expect(f"used {turn}", guest.PATIENCE)
            self.assertGreaterEqual(resident(terminal.process.pid), before + USED - SLACK)
            terminal.type("\n")
            terminal.expect(f"freed {turn}", guest.PATIENCE)
            seconds = self.falls(terminal, before + SLACK)
            print(f"# {USED // MIB} MiB are back {seconds:.2f} s after their release", flush=True)
        terminal.type("\n")
        terminal.expect("/dev/shm/kept: OK", guest.PATIENCE)
        self.assertEqual(terminal.wait(guest.PATIENCE), 0)

    def test_target(self):
        """Inflated at the start, deflated and inflated while it runs; the guest's own figures agree."""
        terminal = self.start("echo ready; while read what; do free -b | head -2 | tail -1; echo told; done", "--balloon", "target=256M")

        def settle(size):
            terminal.until(lambda: self.ctl("balloon")["actual"] == size, f"the balloon holds {size / MIB} MiB")
            terminal.type("ask\n")
            free = int(terminal.expect(r"Mem: +\d+ +\d+ +(\d+) ", guest.PATIENCE)[1])
            terminal.expect("told", guest.PATIENCE)
            return free

        terminal.expect("ready", guest.PATIENCE)
        low = settle(256 * MIB)
        self.assertLess(resident(terminal.process.pid), 256 * MIB)
        self.ctl("balloon", "0")
        self.assertAlmostEqual(settle(0), low + 256 * MIB, delta=SLACK)
        self.ctl("balloon", "300M")
        self.assertAlmostEqual(settle(300 * MIB), low - 44 * MIB, delta=SLACK)
        terminal.until(lambda: resident(terminal.process.pid) < 212 * MIB, "the host has what the guest goes without")
        info = self.ctl("balloon")
        self.assertEqual(info["target"], 300 * MIB)
        self.assertGreaterEqual(info["inflated_bytes"], 556 * MIB)
        self.assertEqual(info["refused_pages"], 0)
        terminal.until(lambda: "guest_free_bytes" in self.ctl("balloon"), "the guest has told its statistics")
        self.ctl("quit")

    def test_more_than_there_is(self):
        """A target that the guest cannot meet does not kill it; nor does one that is gone again."""
        terminal = self.start("echo ready; while read what; do echo told $what; done")
        terminal.expect("ready", guest.PATIENCE)
        terminal.type("a\n")
        terminal.expect("told a", guest.PATIENCE)
        self.ctl("balloon", "512M")
        terminal.until(lambda: self.ctl("balloon")["actual"] > 300 * MIB, "the balloon has most of the memory")
        terminal.type("b\n")
        terminal.expect("told b", guest.PATIENCE)
        self.ctl("balloon", "0")
        terminal.until(lambda: self.ctl("balloon")["actual"] == 0, "the balloon is empty")
        terminal.type("c\n")
        terminal.expect("told c", guest.PATIENCE)
        self.ctl("quit")

    def test_cleared_pages(self):
        """A guest that relies on zeroes in what it has freed finds them there, though the pages were gone meanwhile."""
        terminal = self.start(f"for r in 1 2 3; do dd if=/dev/urandom of=/dev/shm/f bs=1M count={USED // MIB // 4} 2>/dev/null; rm /dev/shm/f; "
                              f"sleep 3; done; echo done; read x; {guest.COMPLAINTS} && exit 1; exit 0", append="init_on_free=1 init_on_alloc=0")
        terminal.expect("done", guest.PATIENCE)
        self.assertGreaterEqual(self.ctl("balloon")["reported_bytes"], USED)
        terminal.type("\n")
        terminal.expect("vireo.script: exit status 0", guest.PATIENCE)
        self.assertEqual(terminal.wait(guest.PATIENCE), 0)


if __name__ == "__main__":
    harness.main()
