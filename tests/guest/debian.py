"""
A whole Debian to test with: a copy of the image that tools/debian-prepare made, started by vireo, reached by its console and by ssh.
"""

import os
import shutil
import socket
import subprocess
import time

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
IMAGE = harness.ROOT / "build/debian"
SLOW = {"interp": 60, "qemu": 20}.get(ENGINE, 10)
PATIENCE = harness.PATIENCE * SLOW
APPEND = "root=LABEL=debian console=ttyS0"
LOGIN = r"\blogin: " # the name before it may be cut off by a line of the boot
PROMPT = r"root@debian:[^\r\n]*# "


def prepare():
    """Makes the image, if need be."""
    subprocess.run([harness.ROOT / "tools/debian-prepare"], check=True, stdout=subprocess.DEVNULL)


def free_port():
    """A port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(disk, port, memory="512M"):
    """What starts it; VIREO_TEST_ENGINE=qemu has QEMU's TCG do so, which tells whether image or test is to blame."""
    kernel = ["--kernel", IMAGE / "vmlinuz", "--initrd", IMAGE / "initrd.img", "--append", APPEND]
    if ENGINE == "qemu":
        return ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-m", memory, "-nodefaults", "-display", "none", "-serial", "stdio",
                *(word.replace("--", "-") if isinstance(word, str) and word.startswith("--") else str(word) for word in kernel),
                "-drive", f"if=virtio,format=qcow2,file={disk}",
                "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22"]
    return [harness.VIREO, "run", "--engine", ENGINE, "--memory", memory, *map(str, kernel), "--disk", f"{disk},format=qcow2",
            "--net", f"user,hostfwd=tcp:127.0.0.1:{port}-:22", "--timeout", str(int(PATIENCE * 10))]


class Debian:
    """One that runs, on a disk of its own in the case's directory, which outlives it."""

    def __init__(self, case, **kwargs):
        self.disk = case.dir / "disk.qcow2"
        if not self.disk.exists():
            subprocess.run(["cp", "--reflink=auto", IMAGE / "disk.qcow2", self.disk], check=True)
        self.port = free_port()
        self.terminal = harness.Terminal(command=command(self.disk, self.port, **kwargs))
        case.addCleanup(self.terminal.close)

    def log_in(self):
        """On the console, as root, without a password."""
        self.terminal.expect(LOGIN, PATIENCE)
        self.terminal.type("root\n")
        self.terminal.expect(PROMPT, PATIENCE)

    def ssh(self, script, timeout=PATIENCE):
        """Runs a script as root over ssh; its result. Keys on both sides are checked."""
        words = ["ssh", "-F", "/dev/null", "-i", IMAGE / "id_ed25519", "-p", str(self.port), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                 "-o", f"UserKnownHostsFile={IMAGE / 'known_hosts'}", "-o", "GlobalKnownHostsFile=/dev/null",
                 "-o", "StrictHostKeyChecking=yes", "-o", "LogLevel=ERROR", "root@127.0.0.1", script]
        return subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=timeout, check=False)

    def wait_for_ssh(self):
        """Until the server answers, which is some time after the login prompt."""
        until = time.monotonic() + PATIENCE
        while True:
            result = self.ssh("true")
            if result.returncode != 255:  # ssh's own failures
                return
            if time.monotonic() > until:
                raise AssertionError(f"no ssh within {PATIENCE} s: {result.stderr}")
            time.sleep(0.5)

    def ask(self, script, timeout=PATIENCE):
        """What a script prints that must succeed."""
        result = self.ssh(script, timeout)
        if result.returncode:
            raise AssertionError(f"status {result.returncode} of: {script}\n{result.stdout}\n{result.stderr}")
        return result.stdout

    def end(self):
        """vireo's status, once the guest has powered off."""
        return self.terminal.wait(PATIENCE)


def check_disk(disk):
    """The image is whole and so is the file system in it, without a journal to replay."""
    environment = os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    raw = disk.with_suffix(".raw")
    for words in (["qemu-img", "check", "-q", disk], ["qemu-img", "convert", "-O", "raw", disk, raw], ["e2fsck", "-f", "-n", raw]):
        result = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=environment)
        if result.returncode:
            raise AssertionError(f"{words[0]}: status {result.returncode}\n{result.stdout}{result.stderr}")
    header = subprocess.run(["dumpe2fs", "-h", raw], capture_output=True, text=True, check=True, env=environment).stdout
    raw.unlink()
    if "Filesystem state:         clean" not in header or "needs_recovery" in header:
        raise AssertionError(f"the file system was not unmounted:\n{header}")


def missing():
    """A program that these tests need and the host lacks, or None. tools/deps knows the packages."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    names = ["ssh", "qemu-img", "e2fsck", "dpkg-deb", *(["qemu-system-x86_64"] if ENGINE == "qemu" else [])]
    return next((name for name in names if not shutil.which(name, path=path)), None)
