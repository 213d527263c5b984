"""
A whole Debian (tools/debian-prepare) on an engine: how soon its login prompt is there, what its disk and its network carry, how soon
memory that it frees is the host's again, and what it costs when it has nothing to do.

One session of a guest gives all but what passes between two of them. Commands go in by ssh; what they measure is timed in the
guest by fio and iperf3 and outside by the host's clock, as the rows say.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import engines
from .guest import ROOT, Failure
from .latency import cpu_ns
from .measure import Console

IMAGE = ROOT / "build/debian"
APPEND = "root=LABEL=debian console=ttyS0"
MEMORY_MIB = 1024
LOGIN = re.compile(rb"debian login: ")
BOOT, DISK, NAT, SWITCH, BALLOON = "debian", "fio", "nat", "switch", "balloon"  # to be named beside the workloads
NAMES = (BOOT, DISK, NAT, SWITCH, BALLOON)
SCRATCH_MIB = 512
SCRATCH_PLACE = Path("/dev/shm")  # a host's disk that is busy would show in both, and as much in one as in the other only by luck
SCRATCH = "/dev/disk/by-id/virtio-scratch"  # to the guest: which disk comes first is the hypervisor's affair
JOBS = {"randread": "4k", "randwrite": "4k", "read": "128k", "write": "128k"}  # fio's names
SETTLE_SECONDS = 15  # what systemd still starts after the prompt
IDLE_SECONDS = 10
FREED_MIB = 256
FREED_PATIENCE = 60
HOST = "10.0.2.2"  # the host's loopback to a guest behind user-mode NAT
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    key: str
    label: str
    unit: float  # what the value is divided by to show it
    more: bool  # more is better


ROWS = [
    Row("login_s", "boot to the login prompt, s", 1, False),
    Row("randread_iops", "disk: random reads of 4 KiB, 1000/s", 1e3, True),
    Row("randwrite_iops", "disk: random writes of 4 KiB, 1000/s", 1e3, True),
    Row("read_bytes", "disk: reads of 128 KiB in order, MiB/s", MIB, True),
    Row("write_bytes", "disk: writes of 128 KiB in order, MiB/s", MIB, True),
    Row("to_host_bits", "NAT: guest to host, Mbit/s", 1e6, True),
    Row("from_host_bits", "NAT: host to guest, Mbit/s", 1e6, True),
    Row("switch_bits", "switch: guest to guest, Mbit/s", 1e6, True),
    Row("freed_first_s", "freed memory: until the first is back, s", 1, False),
    Row("freed_s", f"freed memory: until 90 % of {FREED_MIB} MiB are, s", 1, False),
    Row("server_idle_percent", "idle, % of a CPU", 1, False),
]


@dataclass
class Session:
    """What came of one run."""
    values: dict = field(default_factory=dict)  # key of ROWS: figure
    error: str = None


def add(summary, sessions):
    """Puts the medians among an engine's figures."""
    for row in ROWS:
        values = [session.values[row.key] for session in sessions if session.values.get(row.key) is not None]
        if values:
            summary.server[row.key] = statistics.median(values)
    summary.sessions = list(sessions)
    summary.errors += [session.error for session in sessions if session.error]


def faster(row, summary, peer):
    """How many times as good as the peer an engine is in a row; None where one of them has no figure."""
    mine, other = summary.server.get(row.key), peer.server.get(row.key)
    if not mine or not other:
        return None
    return mine / other if row.more else other / mine


def missing(names):
    """Why nothing of this can be measured here, or None."""
    for program in ("ssh", *(["iperf3"] if NAT in names else [])):
        if not shutil.which(program):
            return f"{program} is not installed"
    return None


def prepare():
    """Makes the image, if need be."""
    if subprocess.run([str(ROOT / "tools/debian-prepare")], check=False).returncode:
        raise Failure("tools/debian-prepare failed")


def fill(scratch):
    """A disk to measure, filled, so that reads find something."""
    with open(scratch, "wb") as file:
        block = os.urandom(MIB)
        for _ in range(SCRATCH_MIB):
            file.write(block)


def free_port():
    """Of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Setup:
    """A guest to start."""
    disk: Path
    port: int  # where its ssh is to be had
    scratch: Path = None
    link: Path = None  # the switch's socket, or the cable's
    first: bool = True  # of two on it


def qemu_command(setup):
    """Its devices are run by threads of their own where it has that, and its disks are cached by the host, as vireo's are."""
    words = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", f"{MEMORY_MIB}M", "-nodefaults",
             "-display", "none", "-serial", "stdio", "-no-reboot",
             "-kernel", IMAGE / "vmlinuz", "-initrd", IMAGE / "initrd.img", "-append", APPEND,
             "-drive", f"if=virtio,format=qcow2,cache=writeback,aio=io_uring,discard=unmap,file={setup.disk}",
             "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{setup.port}-:22",
             "-device", "virtio-balloon-pci,free-page-reporting=on"]
    if setup.scratch:
        words += ["-object", "iothread,id=disk",
                  "-drive", f"if=none,id=scratch,format=raw,cache=writeback,aio=io_uring,discard=unmap,file={setup.scratch}",
                  "-device", "virtio-blk-pci,drive=scratch,iothread=disk,serial=scratch"]
    if setup.link:
        server = "on" if setup.first else "off"
        words += ["-netdev", f"stream,id=link,server={server},addr.type=unix,addr.path={setup.link}",
                  "-device", f"virtio-net-pci,netdev=link,mac={mac(setup)}"]
    return list(map(str, words))


def vireo_command(engine, vireo, setup):
    """The same machine."""
    words = [vireo, "run", "--engine", engine.name, "--memory", f"{MEMORY_MIB}M", "--console", "stdio", "--no-reboot",
             "--kernel", IMAGE / "vmlinuz", "--initrd", IMAGE / "initrd.img", "--append", APPEND,
             "--disk", f"{setup.disk},format=qcow2",
             "--net", f"user,hostfwd=tcp:127.0.0.1:{setup.port}-:22"]
    if setup.scratch:
        words += ["--disk", f"{setup.scratch},format=raw,serial=scratch"]
    if setup.link:
        words += ["--net", f"switch={setup.link},mac={mac(setup)}"]
    return list(map(str, words))


def command(engine, vireo, setup):
    """What starts a guest on the engine."""
    return qemu_command(setup) if engine is engines.QEMU else vireo_command(engine, vireo, setup)


def mac(setup):
    """Of the interface on the link."""
    return f"52:54:00:00:77:0{1 if setup.first else 2}"


class Guest:
    """One that runs."""

    def __init__(self, console, port):
        self.console = console
        self.port = port

    def _words(self, script):
        options = ["IdentitiesOnly=yes", "BatchMode=yes", f"UserKnownHostsFile={IMAGE / 'known_hosts'}", "GlobalKnownHostsFile=/dev/null",
                   "StrictHostKeyChecking=yes", "LogLevel=ERROR", "ConnectTimeout=60"]
        return ["ssh", "-F", "/dev/null", "-i", str(IMAGE / "id_ed25519"), "-p", str(self.port),
                *(word for option in options for word in ("-o", option)), "root@127.0.0.1", script]

    def ssh(self, script):
        """The completed process."""
        self.console.drop()
        left = max(self.console.deadline - time.monotonic(), 1)
        try:
            return subprocess.run(self._words(script), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                  timeout=left, check=False)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def ask(self, script):
        """What a script prints that must succeed."""
        result = self.ssh(script)
        if result.returncode:
            raise Failure(f"status {result.returncode} of '{script}': {(result.stderr or result.stdout).strip()[-200:]}")
        return result.stdout

    def wait_for_ssh(self):
        """Until the server answers."""
        while self.ssh("true").returncode == 255:
            if time.monotonic() > self.console.deadline:
                raise TimeoutError
            time.sleep(0.5)
        self.ask("systemctl is-system-running --wait")

    def power_off(self):
        """And wait for the end."""
        self.ssh("systemctl poweroff")
        self.console.wait()
        if self.console.process.returncode:
            raise Failure(f"ended with status {self.console.process.returncode}{self.console.last_words()}")


def idle(guest, seconds):
    """Percent of a CPU."""
    start, before = time.monotonic(), cpu_ns(guest.console.process.pid)
    time.sleep(seconds)
    return (cpu_ns(guest.console.process.pid) - before) / (time.monotonic() - start) / 1e7


def disk(guest, seconds):
    """{key: figure} of the jobs."""
    values = {}
    for name, size in JOBS.items():
        text = guest.ask(f"fio --name=job --filename={SCRATCH} --direct=1 --ioengine=io_uring --iodepth=32 --rw={name} --bs={size} "
                         f"--time_based --ramp_time=1 --runtime={seconds} --gtod_reduce=1 --output-format=json")
        job = json.loads(text[text.index("{"):])["jobs"][0]["read" if name.endswith("read") else "write"]
        if not job["total_ios"]:  # fio ends with status 0 where it refuses
            raise Failure(f"fio did nothing of {name}: {text[:200]}")
        if name.startswith("rand"):
            values[f"{name}_iops"] = job["iops"]
        else:
            values[f"{name}_bytes"] = job["bw_bytes"]
    return values


def _received(text):
    return json.loads(text)["end"]["sum_received"]["bits_per_second"]


def nat(guest, seconds):
    """Both ways through the host's loopback."""
    port = free_port()
    words = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            time.sleep(0.5)
            client = f"iperf3 --client {HOST} --port {port} --time {seconds} --json"
            return {"to_host_bits": _received(guest.ask(client)), "from_host_bits": _received(guest.ask(f"{client} --reverse"))}
        finally:
            server.terminate()


def resident(pid):
    """Bytes of memory that the process has, its guest's among them."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024


def balloon(guest):
    """
    How long after the guest freed memory the first of it is the host's, and nearly all. Linux looks for pages to report each two
    seconds only (PAGE_REPORTING_DELAY), and takes a part of them then.
    """
    pid = guest.console.process.pid
    guest.ask(f"mount -o remount,size={FREED_MIB + 64}M /dev/shm && head -c {FREED_MIB}M /dev/urandom >/dev/shm/held")
    time.sleep(5)  # what the command itself took and left
    held = resident(pid)
    with subprocess.Popen(guest._words("rm /dev/shm/held; echo freed; sleep 1"), stdin=subprocess.DEVNULL,  # pylint: disable=protected-access
                          stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        start = time.monotonic()
        first = None
        while (now := time.monotonic() - start) < FREED_PATIENCE:
            back = held - resident(pid)
            first = first or (now if back >= 8 * MIB else None)
            if back >= FREED_MIB * MIB * 9 // 10:
                return {"freed_first_s": first, "freed_s": now}
            time.sleep(0.01)
    if first:
        return {"freed_first_s": first}
    raise Failure(f"nothing of {FREED_MIB} MiB was given back within {FREED_PATIENCE} s")


def address(guest, setup):
    """Gives the interface on the link an address, and returns it."""
    own = f"192.168.77.{1 if setup.first else 2}"
    guest.ask(f"for i in /sys/class/net/*; do [ $(cat $i/address) = {mac(setup)} ] && "
              f"ip link set ${{i##*/}} up && ip addr add {own}/24 dev ${{i##*/}}; done; true")
    return own


class Bench:
    """What is asked for, on whichever engine."""

    def __init__(self, names, vireo, seconds):
        self.names = names
        self.vireo = vireo
        self.seconds = seconds  # for each of fio's and iperf3's figures

    def start(self, stack, engine, directory, timeout, **kwargs):
        """A guest at its prompt, on a disk of its own: (guest, seconds it took, its setup)."""
        port = free_port()
        own = Path(directory) / f"disk-{port}.qcow2"
        subprocess.run(["cp", "--reflink=auto", str(IMAGE / "disk.qcow2"), str(own)], check=True)
        setup = Setup(own, port, **kwargs)
        console = stack.enter_context(Console(command(engine, self.vireo, setup), timeout))
        return Guest(console, port), console.until(LOGIN), setup

    def one(self, engine, directory, timeout, progress, values):
        """All that takes one guest."""
        with contextlib.ExitStack() as stack:
            progress("boot")
            scratch = None
            if DISK in self.names:
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=SCRATCH_PLACE))) / "disk.img"
                fill(scratch)
            guest, values["login_s"], _ = self.start(stack, engine, directory, timeout, scratch=scratch)
            guest.wait_for_ssh()
            if BOOT in self.names:
                progress("idle")
                time.sleep(SETTLE_SECONDS)
                values["server_idle_percent"] = idle(guest, IDLE_SECONDS)
            if BALLOON in self.names:
                progress(BALLOON)
                values.update(balloon(guest))
            if DISK in self.names:
                progress(DISK)
                values.update(disk(guest, self.seconds))
            if NAT in self.names:
                progress(NAT)
                values.update(nat(guest, self.seconds))
            guest.power_off()

    def two(self, engine, directory, timeout, progress, values):
        """From one guest to another."""
        with contextlib.ExitStack() as stack:
            progress(SWITCH)
            link = Path(directory) / "link"
            if engine is not engines.QEMU:
                stack.enter_context(switch(self.vireo, link))
            first, _, one = self.start(stack, engine, directory, timeout, link=link)
            second, _, other = self.start(stack, engine, directory, timeout, link=link, first=False)
            first.wait_for_ssh()
            second.wait_for_ssh()
            target = address(first, one)
            address(second, other)
            first.ask("iperf3 --server --daemon")
            values["switch_bits"] = _received(second.ask(f"iperf3 --client {target} --time {self.seconds} --json"))
            second.power_off()
            first.power_off()

    def session(self, engine, timeout, progress):
        """One run. Never raises for what a guest does."""
        session = Session()
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as directory:
                if set(self.names) - {SWITCH}:
                    self.one(engine, directory, timeout, progress, session.values)
                if SWITCH in self.names:
                    self.two(engine, directory, timeout, progress, session.values)
        except TimeoutError:
            session.error = f"Debian: not done after {timeout:.0f} s"
        except (Failure, OSError, EOFError, ValueError, KeyError) as error:
            session.error = f"Debian: {error}"
        return session

    def estimate(self, engine):
        """Seconds that a run takes, roughly."""
        boot = engine.boot * 8
        alone = boot + sum(seconds for name, seconds in ((BOOT, SETTLE_SECONDS + IDLE_SECONDS), (BALLOON, 20),
                                                          (DISK, len(JOBS) * (self.seconds + 4)), (NAT, 2 * (self.seconds + 2)))
                           if name in self.names)
        return alone * bool(set(self.names) - {SWITCH}) + (2 * boot + self.seconds + 5) * (SWITCH in self.names)


@contextlib.contextmanager
def switch(vireo, path):
    """A running switch at a socket."""
    with subprocess.Popen([str(vireo), "switch", "bench", "--socket", str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(500):
                if path.exists():
                    break
                time.sleep(0.01)
            yield
        finally:
            process.terminate()
