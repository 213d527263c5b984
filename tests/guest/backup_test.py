"""
Backups of a running VM's disk: made while the guest writes, interrupted, and held against what the guest had then.

usage: backup_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine. Needs qemu-img and e2fsck.
"""

import json
import os
import shutil
import subprocess
import time
import unittest

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
CONSOLE = "console=ttyS0,115200 quiet"
PROMPT = r"root@vireo:[^\r\n]*# "
BOOT = harness.PATIENCE * 5


@unittest.skipUnless(shutil.which("qemu-img") and shutil.which("e2fsck"), "qemu-img or e2fsck is missing")
class Backup(harness.Case):
    """One guest."""

    def ctl(self, *words):
        """What `vireo ctl` prints as JSON, or None."""
        result = self.run_vireo("ctl", self.path, *words)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return json.loads(result.stdout) if result.stdout else None

    def start(self):
        """A guest at its prompt."""
        self.path = self.dir / "control"
        self.guest = harness.Terminal("run", "--engine", ENGINE, "--kernel", harness.GUEST / "vmlinux", "--initrd",
                                      harness.GUEST / "initrd.img", "--append", CONSOLE, "--control", f"unix:{self.path}",
                                      "--disk", self.image)
        self.addCleanup(self.guest.close)
        self.guest.expect(PROMPT, BOOT)

    def ask(self, command):
        """What a command prints on the guest's console."""
        self.guest.type(f"{command}; echo en\"\"d\n")
        text = self.guest.expect(r"(?s)\n(.*?)end\r*\n").group(1)
        self.guest.expect(PROMPT)
        return text.replace("\r", "")

    def backup(self, options=""):
        """A point, waited for."""
        self.ctl("backup", "disk0", f"{self.repo},same-disk-anyway{options}")
        return self.ended()

    def ended(self):
        """How the backup under way ended."""
        for _ in range(int(harness.PATIENCE * 10)):
            status = self.ctl("backup", "status")
            if status["state"] in ("done", "failed"):
                return status
            time.sleep(0.1)
        return self.fail(status)

    def restored(self, point):
        """The files in a point's file system, which is sound."""
        raw = self.dir / "restored.raw"
        result = self.run_vireo("disk", "restore", self.repo, "--point", point, raw, "--replace")
        self.assertEqual(result.returncode, 0, result.stderr)
        fsck = subprocess.run(["e2fsck", "-fy", raw], capture_output=True, text=True, check=False)
        self.assertIn(fsck.returncode, (0, 1), fsck.stdout)
        return subprocess.run(["debugfs", "-R", "cat /file", raw], capture_output=True, text=True, check=True).stdout

    def test_points(self):
        """Full, incremental, cancelled, and one that the VM's end cuts short; the guest writes all the while."""
        self.image, self.repo = self.dir / "a.qcow2", self.dir / "repo"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.image, "96M"], check=True)
        self.start()
        self.ask("mke2fs -q /dev/vda; mkdir -p /a; mount /dev/vda /a; echo one >/a/file; sync")
        self.ask("(i=0; while :; do i=$((i + 1)); dd if=/dev/urandom of=/a/f$((i % 20)) bs=64k count=8 2>/dev/null; done) & true")
        self.one_line(self.run_vireo("ctl", self.path, "backup", "disk0", self.repo), 1, "same file system")
        first = self.backup(",name=first")
        self.assertEqual((first["state"], first.get("kind")), ("done", "full"), first)
        self.ask("echo two >/a/file; sync")
        second = self.backup()
        self.assertEqual((second["kind"], second["why"]), ("incremental", ""))
        self.ctl("backup", "disk0", f"{self.repo},same-disk-anyway,full")
        self.run_vireo("ctl", self.path, "backup", "cancel")  # it may be over already
        self.ended()
        self.ask("echo three >/a/file; sync")
        third = self.backup()
        self.assertEqual((third["kind"], third["why"]), ("incremental", ""))
        self.assertEqual(self.ctl("snapshot", "list")["disk0"]["snapshots"], [])
        self.ctl("backup", "disk0", f"{self.repo},same-disk-anyway")
        self.ctl("quit")
        self.guest.wait()
        subprocess.run(["qemu-img", "check", "-q", self.image], check=True)
        self.assertEqual(json.loads(self.run_vireo("disk", "snapshot", "list", "--json", self.image).stdout)["snapshots"], [])
        told = json.loads(self.run_vireo("disk", "backup", self.image, self.repo, "--same-disk-anyway", "--json").stdout)
        self.assertEqual((told["kind"], told["why"]), ("incremental", ""))
        shutil.copy(self.image, self.dir / "then.qcow2")
        self.image.unlink()
        self.assertEqual([self.restored(p) for p in ("first", second["point"], third["point"])], ["one\n", "two\n", "three\n"])
        last = self.dir / "last.qcow2"
        self.run_vireo("disk", "restore", self.repo, last)
        self.assertEqual(self.run_vireo("disk", "compare", last, self.dir / "then.qcow2").stdout, b"the same\n")
        self.assertEqual(self.run_vireo("disk", "backup", "--verify", self.repo).returncode, 0)


if __name__ == "__main__":
    harness.main()
