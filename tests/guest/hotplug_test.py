"""
Devices that come and go while a guest runs, and what else the control socket does to it.

usage: hotplug_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine.
"""

import json
import os
import time

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
CONSOLE = "console=ttyS0,115200 quiet"
PROMPT = r"root@vireo:[^\r\n]*# "
BOOT = harness.PATIENCE * 5
MIB = 1 << 20


class HotPlug(harness.Case):
    """One guest with a control socket for each test."""

    def start(self, *options, cpus=1):
        """A guest at its prompt."""
        self.path = self.dir / "control"
        self.guest = harness.Terminal("run", "--engine", ENGINE, "--kernel", harness.GUEST / "vmlinux", "--initrd",
                                      harness.GUEST / "initrd.img", "--append", CONSOLE, "--cpus", cpus, "--control",
                                      f"unix:{self.path}", *options)
        self.addCleanup(self.guest.close)
        self.guest.expect(PROMPT, BOOT)

    def ctl(self, *words):
        """What `vireo ctl` prints as JSON, or None."""
        result = self.run_vireo("ctl", self.path, *words)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return json.loads(result.stdout) if result.stdout else None

    def ask(self, command):
        """What a command prints on the guest's console."""
        self.guest.type(f"{command}; echo en\"\"d\n")
        text = self.guest.expect(r"(?s)\n(.*?)end\r*\n").group(1)
        self.guest.expect(PROMPT)
        return text.replace("\r", "")

    def wait_for(self, command, wanted):
        """Asks until the answer is as wanted."""
        limit = time.monotonic() + harness.PATIENCE
        while not wanted(answer := self.ask(command)):
            self.assertLess(time.monotonic(), limit, f"{command}: {answer}")
            time.sleep(0.1)
        return answer

    def image(self, name, size):
        """A raw image of zeroes."""
        path = self.dir / name
        with open(path, "wb") as image:
            image.truncate(size)
        return path

    def device(self, name):
        """An attachment's figures."""
        return next(device for device in self.ctl("list") if device["id"] == name)

    def power_off(self):
        """In good order."""
        self.guest.type("poweroff\n")
        self.assertEqual(self.guest.wait(), 0, self.guest.text)

    def test_disks(self):
        """Come, are written to, and go; again and again in the same slot, with what was written on them."""
        self.start(cpus=2)
        path = self.image("a.raw", 8 * MIB)
        for i in range(3):
            slot = self.ctl("attach", "disk", f"{path},id=data")["slot"]
            self.wait_for("cat /proc/partitions", lambda text: "vda" in text)
            self.assertEqual(self.ask("cat /sys/block/vda/size").strip(), str(8 * MIB // 512))
            self.ask(f"echo round {i} | dd of=/dev/vda bs=512 seek={i} conv=notrunc,sync,fsync")
            self.ctl("detach", "data")
            self.assertNotIn("vda", self.ask("cat /proc/partitions"))
            self.assertNotIn("data", [device["id"] for device in self.ctl("list")])
            self.assertEqual(path.read_bytes()[i * 512:i * 512 + 8], f"round {i}\n".encode())
        self.assertEqual(self.ctl("attach", "disk", f"{path},readonly,id=other")["slot"], slot)
        self.wait_for("cat /proc/partitions", lambda text: "vda" in text)
        self.assertIn("round 2", self.ask("dd if=/dev/vda bs=512 count=3 2>/dev/null"))
        self.power_off()

    def test_disk_in_use(self):
        """A mounted disk goes like one that is pulled out; the guest lives on."""
        path = self.image("a.raw", 16 * MIB)
        self.start("--disk", f"{path},id=data")
        self.ask("mke2fs -q /dev/vda 2>/dev/null; mount /dev/vda /mnt; echo content >/mnt/file; sync")
        self.ctl("detach", "data")
        self.assertNotIn("vda", self.ask("umount /mnt; cat /proc/partitions"))
        self.assertIn("42", self.ask("echo $((6 * 7))"))
        self.ctl("attach", "disk", path)
        self.wait_for("cat /proc/partitions", lambda text: "vda" in text or "vdb" in text)
        self.assertIn("content", self.ask("mount /dev/vd? /mnt; cat /mnt/file"))
        self.power_off()

    def test_interfaces(self):
        """Come with their addresses, work, lose their cable and go."""
        self.start()
        self.ctl("attach", "net", "user,id=outside,mac=52:54:00:aa:bb:cc")
        self.wait_for("ifconfig -a", lambda text: "52:54:00:AA:BB:CC" in text)
        self.ask("ifconfig eth0 up")
        self.assertIn("obtained", self.ask("udhcpc -i eth0 -n -q 2>&1"))
        self.ctl("link", "outside", "down")
        self.wait_for("cat /sys/class/net/eth0/carrier", lambda text: text.strip() == "0")
        self.assertEqual(self.device("outside")["link"], "down")
        self.ctl("link", "outside", "up")
        self.wait_for("cat /sys/class/net/eth0/carrier", lambda text: text.strip() == "1")
        self.assertGreater(self.device("outside")["tx_frames"], 0)
        result = self.run_vireo("ctl", self.path, "attach", "net", "user,mac=52:54:00:aa:bb:cc")
        self.one_line(result, 1, "52:54:00:aa:bb:cc", "'outside'")
        self.ctl("detach", "outside")
        self.assertNotIn("eth0", self.ask("ifconfig -a"))
        self.power_off()

    def test_share(self):
        """A directory comes, goes and comes again."""
        shared = self.dir / "shared"
        shared.mkdir()
        self.start()
        for i in range(2):
            (shared / "file").write_text(f"round {i}\n", encoding="ascii")
            self.ctl("attach", "share", f"{shared},tag=hot,id=dir")
            self.wait_for("mount -t virtiofs hot /mnt && cat /mnt/file", lambda text, i=i: f"round {i}" in text)
            self.ask("umount /mnt")
            self.ctl("detach", "dir")
            self.assertNotIn("dir", [device["id"] for device in self.ctl("list")])
        self.power_off()

    def test_resize(self):
        """A disk grows under a running guest, and only as its image can."""
        path = self.image("a.raw", 8 * MIB)
        self.start("--disk", path)
        self.ctl("resize", "disk0", "24M")
        self.wait_for("cat /sys/block/vda/size", lambda text: text.strip() == str(24 * MIB // 512))
        self.assertEqual(path.stat().st_size, 24 * MIB)
        self.ask("echo far | dd of=/dev/vda bs=1M seek=20 conv=notrunc,fsync")
        self.assertEqual(path.read_bytes()[20 * MIB:20 * MIB + 4], b"far\n")
        self.one_line(self.run_vireo("ctl", self.path, "resize", "disk0", "1000"), 1, "'1000'", "512")
        self.one_line(self.run_vireo("ctl", self.path, "resize", "rng0", "1M"), 1, "'rng0'", "disk")
        self.power_off()

    def test_pause_with_work(self):
        """A pause in the midst of writing and of network traffic; nothing is lost."""
        path = self.image("a.raw", 32 * MIB)
        self.start("--disk", path, cpus=2)
        self.guest.type("for i in 1 2 3 4; do dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null; dd if=/tmp/r of=/dev/vda bs=64k "
                        "conv=fsync 2>/dev/null; cmp -n 8388608 /tmp/r /dev/vda && echo sa\"\"me; done; echo a\"\"ll\n")
        for _ in range(20):
            self.ctl("pause")
            figures = self.device("disk0")
            time.sleep(0.02)
            self.assertEqual(self.device("disk0"), figures)
            self.ctl("resume")
            time.sleep(0.02)
        text = self.guest.expect(r"(?s)(.*)all\r*\n", BOOT).group(1)
        self.assertEqual(text.count("same"), 4, text)
        self.power_off()

    def test_attach_while_paused(self):
        """What comes during a pause is stopped as the others are, and works with them behind it."""
        path = self.image("a.raw", 8 * MIB)
        self.start()
        self.ctl("pause")
        self.ctl("attach", "disk", path)
        self.ctl("resume")
        self.wait_for("cat /proc/partitions", lambda text: "vda" in text)
        self.ask("echo here | dd of=/dev/vda bs=512 conv=notrunc,fsync")
        self.assertEqual(path.read_bytes()[:5], b"here\n")
        self.ctl("pause")
        self.ctl("resume")
        self.ctl("detach", "disk0")
        self.assertNotIn("vda", self.ask("cat /proc/partitions"))
        self.power_off()

    def test_balloon(self):
        """The guest gives memory away and gets it back."""
        self.start()
        before = int(self.ask("awk '/MemFree/ { print $2 }' /proc/meminfo"))
        self.ctl("balloon", "128M")
        self.wait_for("true", lambda _: self.ctl("balloon")["actual"] == 128 * MIB)
        self.assertLess(int(self.ask("awk '/MemFree/ { print $2 }' /proc/meminfo")), before - 100 * 1024)
        self.ctl("balloon", "0")
        self.wait_for("true", lambda _: self.ctl("balloon")["actual"] == 0)
        self.assertGreater(int(self.ask("awk '/MemFree/ { print $2 }' /proc/meminfo")), before - 50 * 1024)
        self.one_line(self.run_vireo("ctl", self.path, "balloon", "1T"), 1, "'1T'", "accepted")
        self.power_off()

    def test_power_button(self):
        """The guest shuts itself down."""
        self.start()
        self.ctl("power")
        self.assertEqual(self.guest.wait(), 0, self.guest.text)

    def test_reset_keeps_devices(self):
        """What came stays after a reset, and a reset forgets who was asked to go."""
        path = self.image("a.raw", 8 * MIB)
        self.start()
        self.ctl("attach", "disk", path)
        self.wait_for("cat /proc/partitions", lambda text: "vda" in text)
        self.ctl("reset")
        self.guest.expect(PROMPT, BOOT)
        self.assertIn("vda", self.ask("cat /proc/partitions"))
        self.ctl("detach", "disk0")
        self.assertNotIn("vda", self.ask("cat /proc/partitions"))
        self.power_off()


if __name__ == "__main__":
    harness.main()
