"""`vireo disk backup` and `restore`: points in time, whoever wrote between them, cut anywhere, damaged, deleted."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MIB = 1 << 20
SIZE = 24 * MIB + 512
HAVE_QEMU = shutil.which("qemu-img") is not None
needs_qemu = unittest.skipUnless(HAVE_QEMU, "qemu-img is not there")


class Backup(harness.Case):
    """With an image, a flat copy of what it holds, and a repository."""

    def setUp(self):
        super().setUp()
        self.image, self.flat, self.repo = self.dir / "image.qcow2", self.dir / "flat.raw", self.dir / "repo"
        self.dice = random.Random(7)
        self.content = bytearray(SIZE)
        self.then = {}
        self.change()
        self.disk("convert", self.flat, self.image)

    def disk(self, *args):
        """`vireo disk args`, which must succeed: what it prints."""
        result = self.run_vireo("disk", *args)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def change(self):
        """Random writes to what the image is to hold: where."""
        places = []
        for _ in range(12):
            n = self.dice.choice([512, 4096, 70000 // 512 * 512, 300 * 1024])
            at = self.dice.randrange((SIZE - n) // 512 + 1) * 512
            value = self.dice.randrange(256)
            self.content[at:at + n] = bytes([value]) * n
            places.append((at, n, value))
        self.flat.write_bytes(self.content)
        return places

    def write(self):
        """The same to the image, with qemu-io, which keeps bitmaps too."""
        commands = [word for at, n, value in self.change() for word in ("-c", f"write -P {value} {at} {n}")]
        subprocess.run(["qemu-io", "-f", "qcow2", *commands, self.image], check=True, capture_output=True)

    def backup(self, *args):
        """A point, and what the image holds now."""
        told = json.loads(self.disk("backup", self.image, self.repo, "--same-disk-anyway", "--json", *args))
        self.then[told["id"]] = bytes(self.content)
        return told

    def points(self):
        """What the repository lists."""
        return json.loads(self.disk("backup", "--list", self.repo, "--json"))["points"]

    def all_restore(self):
        """Every point that is listed, to what the image held then."""
        points = self.points()
        for point in points:
            to = self.dir / "to.raw"
            self.disk("restore", self.repo, "--point", point["id"], to, "--replace")
            self.assertEqual(to.read_bytes(), self.then[point["id"]], point["id"])
        return points


class Points(Backup):
    """What is kept, and how it comes back."""

    @needs_qemu
    def test_series(self):
        """Full, then by bitmap; the original image is deleted, and all of it is there, with vireo or without."""
        self.assertEqual(self.backup("--name", "first")["kind"], "full")
        for _ in range(4):
            self.write()
            told = self.backup()
            self.assertEqual((told["kind"], told["why"]), ("incremental", ""))
            self.assertLess(told["changed"], SIZE // 2)
            self.assertEqual(subprocess.run(["qemu-img", "check", self.image], capture_output=True, check=False).returncode, 0)
        self.assertEqual(self.backup()["changed"], 0)
        self.image.unlink()
        self.assertEqual(len(self.all_restore()), 6)
        self.assertIn("all of them whole", self.disk("backup", "--verify", self.repo))
        for point in self.points():
            alone = self.dir / "alone.raw"
            subprocess.run(["qemu-img", "convert", "-O", "raw", self.repo / f"{point['id']}.qcow2", alone], check=True)
            self.assertEqual(alone.read_bytes(), self.then[point["id"]])
        self.disk("restore", self.repo, self.dir / "last.qcow2")
        self.disk("compare", self.dir / "last.qcow2", self.flat)
        self.disk("restore", self.repo, "--point", "first", self.dir / "first.raw")
        self.assertEqual((self.dir / "first.raw").read_bytes(), self.then[self.points()[0]["id"]])

    @needs_qemu
    def test_no_bitmap(self):
        """A comparison takes its place, and it says why."""
        self.backup()
        subprocess.run(["qemu-img", "bitmap", "--remove", self.image, self.bitmap()], check=True)
        self.write()
        told = self.backup()
        self.assertEqual(told["kind"], "incremental")
        self.assertIn("no bitmap", told["why"])
        self.assertLess(told["changed"], SIZE // 2)
        raw = self.dir / "plain.raw"
        raw.write_bytes(self.content)
        text = self.disk("backup", raw, self.repo, "--same-disk-anyway")
        self.assertIn("full", text)
        self.then[self.points()[-1]["id"]] = bytes(self.content)
        self.content[5 * MIB] ^= 1
        raw.write_bytes(self.content)
        told = json.loads(self.disk("backup", raw, self.repo, "--same-disk-anyway", "--json"))
        self.then[told["id"]] = bytes(self.content)
        self.assertEqual((told["kind"], told["changed"]), ("incremental", 65536))
        self.all_restore()

    def bitmap(self):
        """The name of the image's bitmap."""
        info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", self.image], check=True,
                                         capture_output=True).stdout)
        return info["format-specific"]["data"]["bitmaps"][0]["name"]

    @needs_qemu
    def test_inconsistent(self):
        """A writer that was killed leaves a bitmap that nobody relies on."""
        self.backup()
        with subprocess.Popen(["qemu-io", self.image], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            writer.stdin.write(b"write -P 9 1M 64k\nflush\n")
            writer.stdin.flush()
            writer.stdout.readline()
            writer.stdout.readline()
            time.sleep(0.2)
            writer.kill()
        self.content[MIB:MIB + 65536] = b"\x09" * 65536
        told = self.backup()
        self.assertIn("inconsistent", told["why"])
        self.assertEqual(told["changed"], 65536)
        self.assertEqual(self.backup()["why"], "")
        self.all_restore()

    @needs_qemu
    def test_old_copy(self):
        """An image that went back to an older copy of itself: what it holds is what counts."""
        self.backup()
        old, content = self.dir / "old.qcow2", bytes(self.content)
        shutil.copy(self.image, old)
        self.write()
        self.backup()
        self.write()
        shutil.copy(old, self.image)
        self.content[:] = content
        self.write()
        self.backup()
        self.all_restore()

    @needs_qemu
    def test_resize(self):
        """Longer, shorter and longer again."""
        self.backup()
        for size in (40 * MIB, 9 * MIB, 30 * MIB):
            subprocess.run(["qemu-img", "resize", "--shrink", "-f", "qcow2", self.image, str(size)], check=False,
                           capture_output=True)
            with subprocess.Popen(["qemu-img", "info", "--output=json", self.image], stdout=subprocess.PIPE) as info:
                now = json.load(info.stdout)["virtual-size"]
            self.content = self.content[:now] + bytearray(max(0, now - len(self.content)))
            self.backup()
        self.all_restore()

    @needs_qemu
    def test_delete(self):
        """Some points go; the others are what they were."""
        for _ in range(6):
            self.backup()
            self.write()
        points = self.points()
        self.disk("backup", self.repo, "--delete", points[0]["id"], "--delete", points[2]["id"], "--delete", points[3]["id"])
        left = self.all_restore()
        self.assertEqual([p["id"] for p in left], [points[i]["id"] for i in (1, 4, 5)])
        self.assertEqual([p["kind"] for p in left], ["full", "incremental", "incremental"])
        self.disk("backup", self.repo, "--verify")
        self.assertEqual(self.backup()["why"], "")
        self.disk("backup", self.repo, "--prune", "1")
        self.assertEqual(len(self.all_restore()), 1)
        self.assertEqual(len(list(self.repo.glob("*.qcow2*"))), 1)


class Trouble(Backup):
    """Interruptions, damage, wrong use."""

    def test_same_file_system(self):
        """It is refused, and says why."""
        self.one_line(self.run_vireo("disk", "backup", self.image, self.repo), 2, "same file system", "--same-disk-anyway")
        self.assertFalse(self.repo.exists())
        if not os.path.ismount("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(self.dir).st_dev:
            self.skipTest("there is no other file system")
        with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
            self.disk("backup", self.image, Path(other) / "repo")

    def test_killed(self):
        """At any moment: what is listed is whole, and the next one goes on."""
        noise = bytearray(self.dice.randbytes(SIZE - 512) + bytes(512))
        self.content = noise
        self.flat.write_bytes(noise)
        self.disk("convert", self.flat, self.image, "--replace")
        for i in range(10):
            with subprocess.Popen([harness.VIREO, "disk", "backup", self.image, self.repo, "--same-disk-anyway",
                                   *(["--full"] if i % 3 else [])],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                time.sleep(self.dice.random() * 0.5)
                process.send_signal(signal.SIGKILL if i % 2 else signal.SIGTERM)
            if (self.repo / "manifest.json").exists():
                for point in self.points():
                    self.then.setdefault(point["id"], bytes(self.content))
                self.disk("backup", "--verify", self.repo)
        self.backup()
        self.backup()
        self.all_restore()
        self.assertEqual(len(list(self.repo.glob("*.qcow2*"))), len(self.points()))

    @needs_qemu
    def test_killed_while_deleting(self):
        """The points that stay are what they were."""
        for _ in range(5):
            self.backup()
            self.write()
        for i in range(8):
            copy = self.dir / "copy"
            shutil.copytree(self.repo, copy)
            with subprocess.Popen([harness.VIREO, "disk", "backup", copy, "--prune", "2"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) as process:
                time.sleep(self.dice.random() * 0.25)
                process.kill()
            self.disk("backup", "--verify", copy)
            mine, self.repo = self.repo, copy
            self.all_restore()
            if i % 2:
                self.disk("backup", copy, "--prune", "1")
                self.all_restore()
            self.repo = mine
            shutil.rmtree(copy)

    @needs_qemu
    def test_damage(self):
        """Any bit that turns is found, nothing is restored from it, and the other points are as good as before."""
        for _ in range(3):
            self.backup()
            self.write()
        points = self.points()
        path = self.repo / f"{points[1]['id']}.qcow2"
        data = bytearray(path.read_bytes())
        for at in (0, len(data) // 2, len(data) - 1):
            data[at] ^= 0x40
            path.write_bytes(data)
            result = self.run_vireo("disk", "backup", "--verify", self.repo)
            self.assertEqual(result.returncode, 1)
            self.assertEqual([line.split(b":")[0].decode() for line in result.stdout.splitlines()],
                             [points[1]["id"], points[2]["id"]])
            to = self.dir / "to.raw"
            self.one_line(self.run_vireo("disk", "restore", self.repo, to), 1, points[1]["id"], "SHA-256")
            self.assertFalse(to.exists())
            data[at] ^= 0x40
        self.disk("restore", self.repo, "--point", points[0]["id"], self.dir / "to.raw")
        self.assertEqual((self.dir / "to.raw").read_bytes(), self.then[points[0]["id"]])
        path.unlink()
        self.assertEqual(self.run_vireo("disk", "backup", "--verify", self.repo).returncode, 1)

    def test_usage(self):
        """One line each."""
        self.one_line(self.run_vireo("disk", "backup", self.image), 2, "FILE REPO")
        self.one_line(self.run_vireo("disk", "backup", "--list", self.repo), 2, "repo")
        self.one_line(self.run_vireo("disk", "backup", "--list", self.image, self.repo), 2, "REPO alone")
        self.repo.mkdir()
        (self.repo / "letter.txt").write_text("dear")
        self.one_line(self.run_vireo("disk", "backup", self.image, self.repo, "--same-disk-anyway"), 2, "other files")
        (self.repo / "letter.txt").unlink()
        self.backup()
        self.one_line(self.run_vireo("disk", "restore", self.repo, "--point", "nowhere", self.dir / "to.raw"), 2, "nowhere")
        self.one_line(self.run_vireo("disk", "restore", self.repo, "--point", "1999-01-01", self.dir / "to.raw"), 2, "1999")
        self.one_line(self.run_vireo("disk", "restore", self.repo, self.flat), 2, "--replace")
        for manifest in ('{"vireo_backup": 2}', "{", "[]", '{"vireo_backup": 1, "id": "12", "points": [{"id": "../x"}]}'):
            (self.repo / "manifest.json").write_text(manifest)
            self.one_line(self.run_vireo("disk", "backup", "--list", self.repo), 1, "manifest.json")


if __name__ == "__main__":
    harness.main()
