"""
Real kernels: Debian's boots to busybox, works by hand, and powers off. The guest is what tools/guest-prepare made.

usage: boot_test.py VIREO [TEST...]; with VIREO_TEST_KERNEL=PACKAGE, the guest of that kernel package instead (made on demand);
with VIREO_TEST_ENGINE=NAME, on that engine.
"""

import json
import os
import re
import subprocess
import time
import unittest

import harness
from guest import BUSY

PACKAGE = os.environ.get("VIREO_TEST_KERNEL")
ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
CONSOLE = "console=ttyS0,115200 earlyprintk=ttyS0,115200"
PROMPT = r"root@vireo:[^\r\n]*# "
BOOT = harness.PATIENCE * (10 if PACKAGE else 3)


def guest_directory():
    """The directory of the guest to test."""
    out = harness.ROOT / f"guest-{PACKAGE}" if PACKAGE else harness.GUEST
    command = [harness.ROOT / "tools/guest-prepare", "--out", out, *(["--kernel-package", PACKAGE] if PACKAGE else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


class Boot(harness.Case):
    """Each a boot of its own."""

    @classmethod
    def setUpClass(cls):
        cls.guest = guest_directory()

    def arguments(self, append="", kernel="vmlinux"):
        """What starts this guest; a panic resets, and a reset ends it."""
        return ["run", "--engine", ENGINE, "--kernel", self.guest / kernel, "--initrd", self.guest / "initrd.img", "--no-reboot",
                "--append", f"{CONSOLE} panic=-1 {append}", "--timeout", BOOT]

    def start(self, *args, **kwargs):
        """A guest at its prompt."""
        terminal = harness.Terminal(*self.arguments(**kwargs), *args)
        self.addCleanup(terminal.close)
        terminal.expect(PROMPT, BOOT)
        return terminal

    def ask(self, terminal, command, timeout=harness.PATIENCE):
        """What a command on the guest's console prints."""
        terminal.type(f"{command}; echo en\"\"d\n")
        text = terminal.expect(r"(?s)\n(.*?)end\r*\n", timeout).group(1)
        terminal.expect(PROMPT)
        return text.replace("\r", "")

    def script(self, cpus, kernel="vmlinux"):
        """Boots, runs a script over the console, and powers off."""
        terminal = self.start("--cpus", cpus, kernel=kernel)
        self.assertEqual(self.ask(terminal, "nproc").strip(), str(cpus))
        self.assertEqual(self.ask(terminal, "echo $((6 * 7))").strip(), "42")
        self.assertIn("virtio_pci", self.ask(terminal, "lsmod"))
        self.assertIn("/dev/ttyS0", self.ask(terminal, "tty"))
        sums = self.ask(terminal, "for i in 1 2 3 4; do dd if=/dev/zero bs=4096 count=64 2>/dev/null | sha256sum & done; wait")
        self.assertEqual(sums.count("8a39d2abd3999ab73c34db2476849cddf303ce389b35826850f9a700589b4a90"), 4, sums)
        terminal.type("poweroff\n")
        self.assertEqual(terminal.wait(), 0, terminal.text)

    def test_one_cpu(self):
        """One vCPU."""
        self.script(1)

    def test_four_cpus(self):
        """Four vCPUs."""
        self.script(4)

    @unittest.skipUnless(ENGINE == "bt", "an option for the translator")
    def test_small_code_cache(self):
        """The least code cache there is, for four vCPUs: a hundredth of what booting translates."""
        terminal = self.start("--cpus", "4", "--code-cache", "1M")
        self.assertEqual(self.ask(terminal, "seq 1000 | sort -n | tail -n 1").strip(), "1000")
        terminal.type("poweroff\n")
        self.assertEqual(terminal.wait(), 0, terminal.text)

    def test_bzimage(self):
        """By the 64-bit boot protocol; the kernel unpacks itself."""
        self.script(1, kernel="bzImage")

    def test_script(self):
        """The guest's own hook for scripts, with statistics."""
        stats = self.dir / "stats.json"
        result = self.run_vireo(*self.arguments(append='vireo.script="sleep 1; echo marker $((40 + 2)); false"'), "--stats", stats,
                                timeout=BOOT)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"marker 42\r\n", result.stdout)
        self.assertIn(b"vireo.script: exit status 1\r\n", result.stdout)
        figures = json.loads(stats.read_text())
        self.assertEqual(figures["end"], "off")
        for reason in ("pio_out", "mmio_write", "cpuid", "msr_write", "hlt", "interrupt"):
            self.assertGreater(figures["exits"][reason], 0, reason)

    def test_by_hand(self):
        """Job control, an editor, the clock, and what the kernel had to complain about."""
        terminal = self.start()
        terminal.type("sleep 1000\n")
        time.sleep(1)
        terminal.type("\x1a")  # Ctrl-Z
        terminal.expect("Stopped")
        terminal.expect(PROMPT)
        terminal.type("fg\n")
        terminal.expect("sleep 1000")
        terminal.type("\x03")  # Ctrl-C
        terminal.expect(PROMPT)
        self.ask(terminal, "stty rows 24 cols 80")  # or vi asks the terminal, and takes a late answer for keys
        terminal.type("vi /tmp/file\n")
        terminal.expect("- /tmp/file")  # its status line
        terminal.type("ihello\x1b")
        terminal.expect("hello")
        time.sleep(1)  # or Escape and the colon would be one key
        terminal.type(":wq\n")
        terminal.expect(PROMPT)
        self.assertEqual(self.ask(terminal, "cat /tmp/file").strip(), "hello")
        self.compare_clocks(terminal)
        self.assertEqual(self.complaints(terminal), [])

    def complaints(self, terminal):
        """The kernel's, but for those about a busy host."""
        return [line for line in self.ask(terminal, "dmesg -r | grep '^<[0-4]>'").splitlines() if not re.search(BUSY, line)]

    def compare_clocks(self, terminal):
        """The guest's real time is the host's, to the second that a real-time clock knows; however long a busy host takes for the answer."""
        before = time.time()
        now = int(self.ask(terminal, "date +%s"))
        self.assertTrue(before - 2 <= now <= time.time() + 1, (before, now, time.time()))

    def test_clock(self):
        """KVM's clock on every CPU; the TSC is preferred to it, being invariant, and either agrees with the host's time."""
        terminal = self.start("--cpus", 4)
        self.ask(terminal, "dmesg -n 1")  # it says when it changes over, in the middle of what is typed
        self.assertIn("kvm-clock: Using msrs 4b564d01 and 4b564d00", self.ask(terminal, "dmesg"))
        self.ask(terminal, "cd /sys/devices/system/clocksource; cd clocksource0")
        self.ask(terminal, "current=$PWD/current_clocksource; cd")
        self.assertEqual(self.ask(terminal, "cat $current").strip(), "tsc")
        for name in ("kvm-clock", "tsc"):
            with self.subTest(name):
                self.ask(terminal, f"echo {name} >$current")
                self.assertEqual(self.ask(terminal, "cat $current").strip(), name)
                for cpu in range(4):
                    self.ask(terminal, f"taskset -p {1 << cpu:x} $$")
                    self.compare_clocks(terminal)
                    began = time.monotonic()
                    self.ask(terminal, "sleep 1")
                    self.assertGreaterEqual(time.monotonic() - began, 0.99)
        self.assertEqual(self.complaints(terminal), [])

    @unittest.skipIf(PACKAGE, "it is about the default guest")
    def test_default(self):
        """Without --kernel: the guest knows how large the terminal is, and goes by what --append says after that."""
        terminal = harness.Terminal("run", "--engine", ENGINE, "--timeout", BOOT, "--append", "more")
        self.addCleanup(terminal.close)
        terminal.expect(PROMPT, BOOT)
        self.assertRegex(self.ask(terminal, "cat /proc/cmdline"), r"vireo\.tty=24x80 more$")
        self.assertEqual(self.ask(terminal, "stty size").strip(), "24 80")
        other = self.start(append="vireo.tty=50x132")
        self.assertEqual(self.ask(other, "stty size").strip(), "50 132")

    def test_power_button(self):
        """Ctrl-A p: the guest hears of it, and shuts down."""
        terminal = self.start()
        self.ask(terminal, "until ls -l /proc/$(pidof acpid)/fd | grep -q /dev/input; do sleep 1; done")
        terminal.type("\x01p")
        self.assertEqual(terminal.wait(), 0, terminal.text)

    def test_reboot(self):
        """`reboot` under --no-reboot is status 3, also by way of the firmware; a triple fault is a crash."""
        for way, line in (("", "the guest reset"), ("reboot=b", "the guest reset"),
                          ("reboot=t", "the guest crashed: triple fault on CPU 0")):
            with self.subTest(way):
                terminal = self.start(append=way)
                terminal.type("reboot\n")
                self.assertEqual(terminal.wait(), 3, terminal.text)
                self.assertIn(line, terminal.text)


if __name__ == "__main__":
    harness.main()
