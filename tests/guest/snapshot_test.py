"""
Snapshots of a running VM's disks: made while the guest writes, with an agent in the guest and without, and returned to.

usage: snapshot_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine. Needs qemu-img and e2fsck.
"""

import json
import os
import shutil
import subprocess
import unittest

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
CONSOLE = "console=ttyS0,115200 quiet"
PROMPT = r"root@vireo:[^\r\n]*# "
BOOT = harness.PATIENCE * 5

# The port by its name: /dev/virtio-ports is udev's.
FIND = "port=; for p in /sys/class/virtio-ports/*; do [ \"$(cat $p/name)\" = org.qemu.guest_agent.0 ] && port=/dev/${p##*/}; done"

# An agent of a few lines: what it froze and thawed is in /tmp/log.
AGENT = r"""
exec 3<>$1
while IFS= read -r line <&3; do
case "$line" in
*sync-delimited*) id=${line##*\"id\": }; printf '\377{"return": %s}\n' "${id%%\}*}" >&3;;
*fsfreeze-freeze*) sync; fsfreeze --freeze /mnt; echo freeze >>/tmp/log; printf '{"return": 1}\n' >&3;;
*fsfreeze-thaw*) fsfreeze --unfreeze /mnt; echo thaw >>/tmp/log; printf '{"return": 1}\n' >&3;;
esac
done &
"""


@unittest.skipUnless(shutil.which("qemu-img") and shutil.which("e2fsck"), "qemu-img or e2fsck is missing")
class Snapshot(harness.Case):
    """One guest for each test."""

    def start(self, *options):
        """A guest at its prompt."""
        self.path = self.dir / "control"
        self.guest = harness.Terminal("run", "--engine", ENGINE, "--kernel", harness.GUEST / "vmlinux", "--initrd",
                                      harness.GUEST / "initrd.img", "--append", CONSOLE, "--control", f"unix:{self.path}", *options)
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

    def image(self, name):
        """An empty image."""
        path = self.dir / name
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
        return path

    def check(self, path):
        """The image is sound, and so are the file systems in it and in its snapshots."""
        subprocess.run(["qemu-img", "check", "-q", path], check=True)
        names = [s["name"] for s in json.loads(self.run_vireo("disk", "snapshot", "list", "--json", path).stdout)["snapshots"]]
        for name in [None, *names]:
            raw = self.dir / "raw"
            subprocess.run(["qemu-img", "convert", "-O", "raw", *(["-l", f"snapshot.name={name}"] if name else []), path, raw],
                           check=True)
            fsck = subprocess.run(["e2fsck", "-fy", raw], capture_output=True, text=True, check=False)
            self.assertIn(fsck.returncode, (0, 1), fsck.stdout)  # 1: what a power cut leaves, put right

    def power_off(self):
        """In good order."""
        self.guest.type("poweroff\n")
        self.assertEqual(self.guest.wait(), 0, self.guest.text)

    def test_without_agent(self):
        """A snapshot is made while the guest writes to two disks, and goes back to both; the guest boots from its past."""
        images = [self.image("a.qcow2"), self.image("b.qcow2")]
        self.start("--disk", images[0], "--disk", images[1])
        self.ask("mke2fs -q /dev/vda; mke2fs -q /dev/vdb; mkdir -p /a /b; mount /dev/vda /a; mount /dev/vdb /b")
        self.ask("echo old >/a/file; echo old >/b/file; sync")
        self.ask("(i=0; while :; do i=$((i + 1)); dd if=/dev/urandom of=/a/f$((i % 20)) bs=64k count=4 2>/dev/null; cp /a/f$((i % 20)) "
                 "/b/; done) & true")
        made = self.ctl("snapshot", "create", "before")
        self.assertEqual((made["disks"], made["consistency"]), (["disk0", "disk1"], "crash-consistent"))
        self.ask("echo new >/a/file; echo new >/b/file; sync")
        self.ctl("snapshot", "create", "only", "disk1")
        result = self.run_vireo("ctl", self.path, "snapshot", "create", "only")  # disk0 must not keep it
        self.one_line(result, 1, "'only'")
        lists = self.ctl("snapshot", "list")
        self.assertEqual([[s["name"] for s in lists[disk]["snapshots"]] for disk in ("disk0", "disk1")],
                         [["before"], ["before", "only"]])
        self.one_line(self.run_vireo("ctl", self.path, "snapshot", "revert", "only"), 1, "disk0", "before")
        self.assertEqual(self.ask("cat /a/file /b/file"), "new\nnew\n")
        self.assertEqual(self.ctl("snapshot", "revert", "before")["machine"], "reset")
        self.guest.expect(PROMPT, BOOT)
        self.ask("mkdir -p /a /b; mount /dev/vda /a; mount /dev/vdb /b")
        self.assertEqual(self.ask("cat /a/file /b/file"), "old\nold\n")
        self.ctl("snapshot", "delete", "only", "disk1")
        self.ask("umount /a /b")
        self.power_off()
        for image in images:
            self.check(image)

    def test_with_agent(self):
        """The agent freezes, and always thaws; one that goes silent costs some seconds, and no more."""
        image = self.image("a.qcow2")
        self.start("--disk", image, "--port", "agent")
        made = self.ctl("snapshot", "create", "nobody")
        self.assertEqual((made["consistency"], made["reason"]), ("crash-consistent", "no agent answers in the guest"))
        self.ask("mke2fs -q /dev/vda; mount /dev/vda /mnt; echo old >/mnt/file")
        self.ask("cat >/tmp/agent <<'END'" + AGENT + "END\n" + FIND + "; sh /tmp/agent $port 2>/tmp/errors")
        made = self.ctl("snapshot", "create", "frozen")
        self.assertEqual((made["consistency"], made.get("frozen")), ("file systems frozen", 1), self.ask("cat /tmp/errors"))
        self.assertEqual(self.ask("echo new >/mnt/file; sync; cat /tmp/log"), "freeze\nthaw\n")
        self.one_line(self.run_vireo("ctl", self.path, "snapshot", "create", "frozen"), 1, "'frozen'")
        self.assertEqual(self.ask("cat /tmp/log"), "freeze\nthaw\nfreeze\nthaw\n")
        self.ctl("snapshot", "revert", "frozen")
        self.guest.expect(PROMPT, BOOT)
        self.assertEqual(self.ask("mount /dev/vda /mnt; cat /mnt/file"), "old\n")
        self.ask(FIND + "; (while :; do head -c 100000 /dev/zero; echo; sleep 1; done >$port) & true")
        made = self.ctl("snapshot", "create", "silent")
        self.assertEqual(made["consistency"], "crash-consistent")
        self.ask("umount /mnt")
        self.ctl("snapshot", "delete", "nobody")  # it has no file system
        self.power_off()
        self.check(image)


if __name__ == "__main__":
    harness.main()
