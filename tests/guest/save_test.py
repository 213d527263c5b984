"""
A real guest saved in the midst of its work and loaded by another engine, there and back: its program's answer, its clock, its disk, its network and its
console.

usage: save_test.py VIREO [TEST...]; VIREO_TEST_ENGINES="bt interp bt" says what runs it, one after the other.
"""

import os
import signal
import time

import harness

ENGINES = os.environ.get("VIREO_TEST_ENGINES", "bt interp bt").split()
PROMPT = r"root@vireo:[^\r\n]*# "
BOOT = harness.PATIENCE * 5
ROUNDS = 150000
BLOCKS = 96  # of 64 KiB, written to the disk while the state is saved

# A random number generator, round after round.
COUNT = f"s=1; i=0; while [ $i -lt {ROUNDS} ]; do s=$(((s * 1103515245 + 12345) % 2147483648)); i=$((i + 1)); done; echo $s >/tmp/sum.new; mv /tmp/sum.new /tmp/sum"
WRITE = (f"i=0; while [ $i -lt {BLOCKS} ]; do dd if=/tmp/data of=/dev/vda bs=64k skip=$i seek=$i count=1 conv=notrunc oflag=direct 2>/dev/null || echo bad >/tmp/bad; "
         "i=$((i + 1)); done; touch /tmp/written")
# What NAT does not know the guest's address of any more it asks for, and waits a second for the answer: a busy host may be late.
REACH = "n=0; until ping -c 1 -W 3 10.0.2.2 >/dev/null || [ $n -gt 20 ]; do n=$((n + 1)); done; [ $n -le 20 ] && echo reached"
TICK = "while :; do sleep 0.05; echo . >>/tmp/ticks; done"


def expected():
    """What COUNT comes to."""
    value = 1
    for _ in range(ROUNDS):
        value = (value * 1103515245 + 12345) % 2147483648
    return value


class Saved(harness.Case):
    """One guest for each test."""

    def start(self, *options):
        """A vireo on a terminal, and when it began."""
        guest = harness.Terminal("run", "--save", self.state, *self.devices, *options)
        self.addCleanup(guest.close)
        return guest

    def ask(self, guest, command, timeout=harness.PATIENCE):
        """What a command prints on the guest's console."""
        guest.type(f"{command}; echo en\"\"d\n")
        text = guest.expect(r"(?s)(.*?)end\r*\n", timeout).group(1)
        guest.expect(PROMPT)
        return text.replace("\r", "").strip()

    def uptime(self, guest):
        """Seconds."""
        return float(self.ask(guest, "cut -d ' ' -f 1 /proc/uptime"))

    def there_and_back(self, cpus):
        """The whole of it."""
        self.state = self.dir / "state"
        disk = self.dir / "disk.img"
        disk.write_bytes(bytes(BLOCKS << 16))
        self.devices = ("--disk", f"{disk},format=raw", "--net", "user")
        began = time.monotonic()
        guest = self.start("--engine", ENGINES[0], "--cpus", cpus, "--memory", "128M", "--kernel", harness.GUEST / "vmlinux", "--initrd",
                           harness.GUEST / "initrd.img", "--append", "console=ttyS0,115200 quiet")
        guest.expect(PROMPT, BOOT)
        self.ask(guest, "stty -echo 2>/dev/null; PS1='root@vireo:# '")
        self.ask(guest, f"dd if=/dev/urandom of=/tmp/data bs=64k count={BLOCKS} 2>/dev/null; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0")
        self.assertIn("reached", self.ask(guest, REACH))
        before = self.uptime(guest)
        for job in COUNT, WRITE, TICK:
            self.ask(guest, f"({job}) </dev/null >/dev/null 2>&1 & :")
        ran = 0  # seconds in which there was a process
        for engine in ENGINES[1:]:
            ticks = int(self.ask(guest, "wc -l </tmp/ticks || echo 0").splitlines()[-1])
            guest.process.send_signal(signal.SIGUSR1)
            self.assertEqual(guest.wait(), 0, guest.text)
            ran += time.monotonic() - began
            time.sleep(1.5)
            began = time.monotonic()
            guest = self.start("--engine", engine, "--load", self.state)
            guest.until(guest.is_raw, "vireo has the terminal")
            guest.type("\n")
            guest.expect(PROMPT)
            self.assertGreater(int(self.ask(guest, "sleep 0.3; wc -l </tmp/ticks")), ticks)
            self.assertIn("reached", self.ask(guest, REACH))
        wait = "while [ ! -e /tmp/sum ] || [ ! -e /tmp/written ]; do sleep 0.1; done; cat /tmp/sum"
        self.assertEqual(self.ask(guest, wait, BOOT), str(expected()))
        self.assertEqual(self.ask(guest, "cat /tmp/bad 2>/dev/null; sync; cmp /tmp/data /dev/vda && echo same"), "same")
        after = self.uptime(guest)
        ran += time.monotonic() - began
        self.assertLess(before, after)
        self.assertLess(after - before, ran)  # its clock has stood still meanwhile
        self.assertEqual(self.ask(guest, "dmesg -r | grep '^<[0-4]>' | grep -iE 'clock|rcu|lockup|virtio|ata|oops|bug'"), "")
        guest.type("\x01x")
        self.assertEqual(guest.wait(), 0)

    def test_one(self):
        self.there_and_back(1)

    def test_two(self):
        self.there_and_back(2)


if __name__ == "__main__":
    harness.main()
