"""
Disks of a real guest: a file system that lasts, room that comes back to the host, what is read-only, and hosts that cannot.

usage: disk_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import hashlib
import json
import os
import shlex
import subprocess
import unittest

import guest
import harness

MIB = 1 << 20


def room(path):
    """What the host keeps for a file, in bytes."""
    return os.stat(path).st_blocks * 512


class Disk(harness.Case):
    """A guest of its own each."""

    def image(self, name="disk.img", size=None, content=b""):
        """A sparse image, or one that begins with the content."""
        path = self.dir / name
        with open(path, "wb") as file:
            file.write(content)
            file.truncate(size or len(content) or 64 * MIB)
        return path

    def script(self, script, *disks, wrap=lambda command: command, **kwargs):
        """What a script prints in a guest with these disks, given as --disk takes them."""
        command = [harness.VIREO, *guest.arguments(self.dir, "script", {"bin/script": f"#!/bin/sh\n{script}\n".encode()}, **kwargs),
                   "--timeout", guest.PATIENCE]
        command.remove("--no-reboot")
        for disk in disks:
            command += ["--disk", disk]
        result = subprocess.run(wrap([str(word) for word in command]), stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=guest.PATIENCE + 60, check=False)
        text = result.stdout.decode(errors="replace").replace("\r", "")
        self.assertEqual(result.returncode, 0, result.stderr.decode(errors="replace") + text)
        self.assertIn("vireo.script: exit status 0", text)
        self.stderr = result.stderr.decode(errors="replace")
        return [line for line in text[text.index("begin\n") + 6:text.index("vireo.script: exit status 0")].splitlines() if line]

    def test_lasts(self):
        """What a guest writes is there after a reboot, and then in the image; the file system is sound."""
        image = self.image()
        lines = self.script("""
            if mount /dev/vda /mnt 2>/dev/null; then
                md5sum -c /mnt/sums >/dev/null && echo right || echo wrong
                find /mnt -name 'f*' | wc -l
                umount /mnt
                exit
            fi
            mke2fs /dev/vda >/dev/null
            mount /dev/vda /mnt
            mkdir /mnt/d
            for i in $(seq 40); do dd if=/dev/urandom of=/mnt/d/f$i bs=1k count=$((i * 17)) 2>/dev/null & done
            wait
            md5sum /mnt/d/f* >/mnt/sums
            umount /mnt
            echo first
            reboot -f""", image, cpus=2)
        self.assertEqual([lines[0], *lines[-2:]], ["first", "right", "40"])
        check = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
        self.assertEqual(check.returncode, 0, check.stdout)

    def test_content(self):
        """The guest reads what the image holds and the image holds what the guest wrote, at both ends of several disks."""
        first = self.image("first.img", content=os.urandom(3 * MIB))
        second = self.image("second.img", size=5 * MIB)
        digest = hashlib.sha256(first.read_bytes()).hexdigest()
        lines = self.script("""
            cat /sys/block/vda/serial; echo; cat /sys/block/vdb/serial; echo
            cat /sys/block/vda/size /sys/block/vdb/size
            sha256sum </dev/vda
            dd if=/dev/vda of=/dev/vdb bs=64k seek=$((2 * 16)) conv=fsync 2>/dev/null
            sync""", f"{first},serial=one,readonly", f"{second},id=two,queues=2", cpus=2)
        self.assertEqual(lines[:4], ["one", "two", str(3 * MIB // 512), str(5 * MIB // 512)])
        self.assertEqual(lines[4].split()[0], digest)
        self.assertEqual(second.read_bytes(), bytes(2 * MIB) + first.read_bytes())

    def test_discard(self):
        """What the guest discards, the host has back; with discard=off it keeps it."""
        image, kept, thin = self.image(), self.image("kept.img"), self.dir / "thin.qcow2"
        subprocess.run([harness.VIREO, "disk", "create", thin, "64M"], check=True)
        self.script("""
            for d in vda vdb vdc; do
                mke2fs /dev/$d >/dev/null
                mount /dev/$d /mnt
                dd if=/dev/urandom of=/mnt/f bs=1M count=40 2>/dev/null
                sync
                rm /mnt/f
                fstrim /mnt || [ $d = vdb ]
                umount /mnt
            done 2>/dev/null""", image, f"{kept},discard=off", thin)
        self.assertLess(room(image), 4 * MIB)
        self.assertLess(room(thin), 4 * MIB)
        self.assertGreater(room(kept), 40 * MIB)

    def test_zeroes(self):
        """Write zeroes and discards of the whole disk."""
        image = self.image(content=os.urandom(8 * MIB))
        lines = self.script("""
            cat /sys/block/vda/queue/write_zeroes_max_bytes
            fallocate -z -o 0 -l 4194304 /dev/vda 2>/dev/null || dd if=/dev/zero of=/dev/vda bs=1M count=4 2>/dev/null
            blkdiscard -o 4194304 -l 4194304 /dev/vda; sync
            cmp -n 8388608 /dev/vda /dev/zero && echo zero""", image)
        self.assertGreater(int(lines[0]), 0)
        self.assertEqual(lines[-1], "zero")
        self.assertEqual(image.read_bytes(), bytes(8 * MIB))
        self.assertLess(room(image), 5 * MIB)

    def test_read_only(self):
        """The guest knows, and the image stays as it is."""
        image = self.image(content=os.urandom(MIB))
        before = image.read_bytes()
        lines = self.script("""
            blockdev --getro /dev/vda
            dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>/dev/null && echo written || echo refused""", f"{image},readonly")
        self.assertEqual(lines, ["1", "refused"])
        self.assertEqual(image.read_bytes(), before)

    def test_threads(self):
        """Without io_uring, and past the page cache."""
        data = os.urandom(MIB)
        for options in ("threads", "direct", "threads,direct"):
            with self.subTest(options):
                image = self.image(content=data, size=4 * MIB)
                lines = self.script("""
                    dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=32 2>/dev/null
                    dd if=/dev/vda bs=1M count=1 skip=2 2>/dev/null | sha256sum""", f"{image},{options}")
                self.assertEqual(lines[0].split()[0], hashlib.sha256(data).hexdigest())

    def in_small_fs(self, command, then="true"):
        """The command in a namespace where the test's directory `small` is a file system of 8 MiB; `then` runs beside it."""
        small = self.dir / "small"
        setup = f"mount -t tmpfs -o size=8m tmpfs {small}; truncate -s 64M {small}/disk.img; {{ {then}; }} & exec {shlex.join(command)}"
        return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", setup]

    def test_full(self):
        """The host's disk is full: with on-error=report the guest's writes fail, and nothing else does."""
        (self.dir / "small").mkdir()
        lines = self.script("""
            dd if=/dev/zero of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null && echo written || echo failed
            dd if=/dev/vda of=/dev/null bs=1M count=32 2>/dev/null && echo read
            blkdiscard /dev/vda
            dd if=/dev/zero of=/dev/vda bs=1M count=4 conv=fsync 2>/dev/null && echo written""",
                            self.dir / "small/disk.img,on-error=report", wrap=self.in_small_fs)
        self.assertEqual([line for line in lines if "vda" not in line], ["failed", "read", "written"])
        self.assertIn("No space left on device", self.stderr)
        self.assertLess(self.stderr.count("\n"), 10)

    def test_full_pauses(self):
        """The same by default: the VM pauses, and when there is room and it goes on, nothing has been lost."""
        (self.dir / "small").mkdir()
        control, go, grown = self.dir / "control", self.dir / "go", self.dir / "grown"
        script = "dd if=/dev/zero bs=1M count=24 | tr '\\0' x | dd of=/dev/vda bs=1M conv=fsync; md5sum </dev/vda"
        command = [harness.VIREO, *guest.arguments(self.dir, "script", {"bin/script": f"#!/bin/sh\n{script}\n".encode()}),
                   "--timeout", guest.PATIENCE, "--control", f"unix:{control}", "--disk", self.dir / "small/disk.img"]
        then = f"until [ -e {go} ]; do sleep 0.1; done; mount -o remount,size=80m {self.dir}/small; touch {grown}"
        terminal = harness.Terminal(command=self.in_small_fs([str(word) for word in command], then))
        self.addCleanup(terminal.close)
        terminal.expect("No space left on device", guest.PATIENCE)

        def state():
            result = self.run_vireo("ctl", control, "status")
            self.assertEqual(result.returncode, 0, result.stderr)
            return json.loads(result.stdout)["state"]

        terminal.until(lambda: state() == "paused", "a pause")
        go.touch()
        terminal.until(grown.exists, "room")
        self.assertEqual(self.run_vireo("ctl", control, "resume").returncode, 0)
        content = b"x" * 24 * MIB + bytes(40 * MIB)
        terminal.expect(hashlib.md5(content).hexdigest(), guest.PATIENCE)
        self.assertEqual(terminal.wait(guest.PATIENCE), 0, terminal.text)

    def test_full_qcow2_pauses(self):
        """A qcow2 image that finds no room for data or metadata: the VM pauses and goes on, and the image is sound."""
        small, control, go, grown = self.dir / "small", self.dir / "control", self.dir / "go", self.dir / "grown"
        image, after = small / "disk.qcow2", self.dir / "after.qcow2"
        small.mkdir()
        script = "dd if=/dev/zero bs=1M count=24 | tr '\\0' x | dd of=/dev/vda bs=1M conv=fsync; md5sum </dev/vda"
        command = [harness.VIREO, *guest.arguments(self.dir, "script", {"bin/script": f"#!/bin/sh\n{script}\n".encode()}),
                   "--timeout", guest.PATIENCE, "--control", f"unix:{control}", "--disk", image]
        then = f"until [ -e {go} ]; do sleep 0.1; done; mount -o remount,size=80m {small}; touch {grown}"
        setup = (f"mount -t tmpfs -o size=8m tmpfs {small}; {harness.VIREO} disk create {image} 64M --cluster-size 4K; "
                 f"{{ {then}; }} & {shlex.join(map(str, command))}; status=$?; cp {image} {after}; exit $status")
        terminal = harness.Terminal(command=["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", setup])
        self.addCleanup(terminal.close)
        terminal.expect("No space left on device", guest.PATIENCE)
        go.touch()
        terminal.until(grown.exists, "room")
        terminal.until(lambda: b"paused" in self.run_vireo("ctl", control, "status").stdout, "a pause")
        self.assertEqual(self.run_vireo("ctl", control, "resume").returncode, 0)
        content = b"x" * 24 * MIB + bytes(40 * MIB)
        terminal.expect(hashlib.md5(content).hexdigest(), guest.PATIENCE)
        self.assertEqual(terminal.wait(guest.PATIENCE), 0, terminal.text)
        result = self.run_vireo("disk", "check", after)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_resize(self):
        """A disk grows while the guest runs, which can use what it has got."""
        image, control = self.image(size=4 * MIB), self.dir / "control"
        terminal = harness.Terminal(*guest.arguments(self.dir, "sh", {}), "--disk", image, "--timeout", guest.PATIENCE,
                                    "--control", f"unix:{control}")
        self.addCleanup(terminal.close)
        terminal.expect("begin", guest.PATIENCE)
        result = self.run_vireo("ctl", control, "resize", "disk0", "16M")
        self.assertEqual(result.returncode, 0, result.stderr)
        terminal.type(f"until [ $(cat /sys/block/vda/size) = {16 * MIB // 512} ]; do sleep 0.1; done; echo gr\"\"own\n")
        terminal.expect("grown")
        terminal.type("echo last | dd of=/dev/vda bs=512 seek=32767 conv=fsync 2>/dev/null; exit\n")
        self.assertEqual(terminal.wait(guest.PATIENCE), 0, terminal.text)
        self.assertEqual(image.stat().st_size, 16 * MIB)
        self.assertEqual(image.read_bytes()[-512:-507], b"last\n")

    def test_vanishes(self):
        """The image is unlinked, then cut off while the guest runs: it goes on, and sees I/O errors."""
        image = self.image(content=os.urandom(8 * MIB))
        keep = self.dir / "keep"
        os.link(image, keep)
        terminal = harness.Terminal(*guest.arguments(self.dir, "sh", {}), "--disk", image, "--timeout", guest.PATIENCE)
        self.addCleanup(terminal.close)
        terminal.expect("begin", guest.PATIENCE)
        terminal.type("dd if=/dev/vda bs=4096 count=1 2>/dev/null | md5sum\n")
        terminal.expect(hashlib.md5(image.read_bytes()[:4096]).hexdigest())
        image.unlink()
        terminal.type("dd if=/dev/vda bs=4096 count=1 skip=100 2>/dev/null | md5sum\n")
        terminal.expect(hashlib.md5(keep.read_bytes()[100 * 4096:101 * 4096]).hexdigest())
        os.truncate(keep, MIB)
        terminal.type("dd if=/dev/vda bs=4096 count=1 skip=1000 iflag=direct; echo st\"\"atus $?\n")
        terminal.expect("status 1")
        terminal.type("dd if=/dev/vda bs=4096 count=1 skip=101 2>/dev/null | md5sum\n")
        terminal.expect(hashlib.md5(keep.read_bytes()[101 * 4096:102 * 4096]).hexdigest())
        terminal.type("exit\n")
        self.assertEqual(terminal.wait(guest.PATIENCE), 0, terminal.text)


class Refused(harness.Case):
    """Wrong images: one line each, and no guest."""

    def refuse(self, disk, *words):
        """vireo says so."""
        result = self.run_vireo("run", "--kernel", self.kernel("idle"), "--memory", "8M", "--disk", disk)
        self.assertIn(result.returncode, (1, 2))
        self.one_line(result, result.returncode, *words)

    def test_images(self):
        """No file, or none that is a disk."""
        self.refuse(self.dir / "none.img", "none.img", "No such file")
        self.refuse(f"{self.dir},format=raw", "directory", "regular file")
        os.mkfifo(self.dir / "fifo.img")
        self.refuse(self.dir / "fifo.img", "FIFO")
        self.refuse("/dev/null,format=raw", "character device")
        (self.dir / "empty.img").touch()
        self.refuse(self.dir / "empty.img", "empty")
        (self.dir / "disk").write_bytes(bytes(MIB))
        self.refuse(self.dir / "disk", "format=", "raw")
        self.refuse(f"{self.dir / 'disk'},format=floppy", "'floppy'", "raw")

    @unittest.skipIf(os.geteuid() == 0, "root has every right")
    def test_no_right(self):
        """No right to read, or to write."""
        image = self.dir / "disk.img"
        image.write_bytes(bytes(MIB))
        image.chmod(0o400)
        self.refuse(image, "denied", "readonly")
        image.chmod(0)
        self.refuse(f"{image},readonly", "denied")

    def test_twice(self):
        """One image for two disks, and for two VMs; readers share it."""
        image = self.dir / "disk.img"
        image.write_bytes(bytes(MIB))
        kernel = self.kernel("idle")
        result = self.run_vireo("run", "--kernel", kernel, "--memory", "8M", "--disk", image, "--disk", image)
        self.one_line(result, result.returncode, "locked", image)
        self.assertIn(result.returncode, (1, 2))
        other = harness.Terminal("run", "--kernel", kernel, "--memory", "8M", "--disk", image)
        self.addCleanup(other.close)
        other.expect("ready")
        self.refuse(image, "locked")
        self.refuse(f"{image},readonly", "locked")
        other.process.kill()
        other.process.wait()
        readers = harness.Terminal("run", "--kernel", kernel, "--memory", "8M", "--disk", f"{image},readonly", "--disk",
                                   f"{image},readonly")
        self.addCleanup(readers.close)
        readers.expect("ready")
        self.refuse(image, "locked")


if __name__ == "__main__":
    harness.main()
