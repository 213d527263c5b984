"""
Runs the workloads once, natively or in a guest, and notes what came when.

Everything is timed by the host's monotonic clock, as lines arrive on the console. What the workloads say of their own time is
kept beside it: a guest whose clock is wrong shows there.
"""

import json
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

from . import engines

LINE = re.compile(rb"bench: (init|begin \w+|result \w+ iterations \d+ ns_per_op [\d.]+ checksum [0-9a-f]{16}|failed .*|done)")
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")  # how a mapping begins in smaps
MIB = 1 << 20


@dataclass
class Result:
    """One workload in one run."""
    iterations: int
    ns_per_op: float  # by the host's clock
    own_ns_per_op: float  # by the clock of the system it ran in
    checksum: str


@dataclass
class Run:
    """One run of an engine. What is None was not measured."""
    scale: int
    results: dict = field(default_factory=dict)  # name: Result
    wrong: dict = field(default_factory=dict)  # the same, found to be wrong afterwards
    boot_s: float = None  # process start to the first line of the guest's first process
    workloads_s: float = None  # from there to the last workload's end
    total_s: float = None  # process start to its end
    peak_bytes: int = None  # most resident memory the process had
    guest_bytes: int = None  # guest memory backed when the workloads were done
    own_bytes: int = None  # all other memory of the process at that time
    instructions_per_s: float = None  # over the time the guest ran: not halted, not in a device
    stats: dict = None  # vireo's --stats as it is
    error: str = None


class Console:
    """A child process and the lines it prints, each with the time of its arrival."""

    def __init__(self, command, timeout):
        self.errors = tempfile.TemporaryFile()
        self.start = time.monotonic()
        self.deadline = self.start + timeout
        self.usage = None
        self.tail = b""  # the last of what it printed, to show when the run fails
        # A session of its own, so that whatever the child starts ends with it; stdin stays open and silent.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.usage is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self._reap(0)
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()

    def _reap(self, options):
        pid, status, usage = os.wait4(self.process.pid, options)
        if not pid:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage = usage
        return True

    def lines(self):
        """Yields (seconds since the start, line) until the process closes its output; TimeoutError at the deadline."""
        pipe = self.process.stdout.fileno()
        partial = b""
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            data = os.read(pipe, 65536)
            now = time.monotonic() - self.start
            if not data:
                return
            self.tail = (self.tail + data)[-2000:]
            *full, partial = (partial + data).split(b"\n")
            for line in full:
                yield now, line

    def until(self, pattern):
        """Waits until the regular expression is in what it printed, whole line or not; seconds since the start."""
        pipe = self.process.stdout.fileno()
        seen = b""
        while not pattern.search(seen):
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            data = os.read(pipe, 65536)
            if not data:
                raise EOFError(f"ended{self.last_words()}")
            seen = seen[-2000:] + data
            self.tail = seen[-2000:]
        return time.monotonic() - self.start

    def drop(self):
        """Takes what it printed meanwhile, so that it need not wait for that."""
        pipe = self.process.stdout.fileno()
        while select.select([pipe], [], [], 0)[0]:
            data = os.read(pipe, 65536)
            if not data:
                return
            self.tail = (self.tail + data)[-2000:]

    def wait(self):
        """Waits for the end; seconds since the start."""
        while not self._reap(os.WNOHANG):
            self.drop()
            if time.monotonic() > self.deadline:
                raise TimeoutError
            time.sleep(0.005)
        return time.monotonic() - self.start

    def last_words(self):
        """What it had to say: the first line on stderr (registers may follow), else the last on the console."""
        self.errors.seek(0)
        for text, which in ((self.errors.read(), 0), (self.tail, -1)):
            lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
            if lines:
                return f": {lines[which][:200]}"
        return ""


def memory_of(smaps, ram):
    """
    (the guest's pages, all else) in bytes, of the lines of a process's smaps; ram: bytes the guest has.

    Proportional sizes: a page counts once, however often the process maps it, and what n processes map as an n-th in each.
    vireo's guest RAM is known by its name; a VMM's that gives none, as the mapping of just that size.
    """
    named, sized, total = 0, 0, 0
    is_named = is_sized = False
    for line in smaps:
        words = line.split()
        if MAPPING.match(line):
            is_named, is_sized = "/memfd:guest-ram" in line, False
        elif words[0] == "Size:":
            is_sized = int(words[1]) * 1024 == ram
        elif words[0] == "Pss:":
            size = int(words[1]) * 1024
            total += size
            named += size * is_named
            sized += size * is_sized
    return named or sized, total - (named or sized)


def note_memory(run, pid):
    """What the process has now. One that has just ended has nothing, or only an empty file; then what it had before stays."""
    try:
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
            guest_bytes, own_bytes = memory_of(smaps, engines.MEMORY_MIB * MIB)
    except OSError:
        return
    if own_bytes:
        run.guest_bytes, run.own_bytes = guest_bytes, own_bytes


class Reader:
    """Turns the console's lines into a Run."""

    def __init__(self, run, progress):
        self.run = run
        self.progress = progress
        self.began = None

    def take(self, now, line):
        """Returns the first word of what the line says, or None when it is not for us."""
        match = LINE.search(line)
        if not match:
            return None
        words = match[1].decode(errors="replace").split()
        if words[0] == "init":
            self.run.boot_s = now
            self.progress(f"boot {now:.1f} s")
        elif words[0] == "begin":
            self.began = now
            self.progress(words[1])
        elif words[0] == "result" and self.began is not None:
            iterations, own = int(words[3]), float(words[5])
            self.run.results[words[1]] = Result(iterations, (now - self.began) * 1e9 / iterations, own, words[7])
        elif words[0] == "done" and self.run.boot_s is not None:
            self.run.workloads_s = now - self.run.boot_s
        elif words[0] == "failed":
            self.run.error = self.run.error or " ".join(words[1:])
        return words[0]


def native(program, names, scale, progress, cpus=1):
    """The workloads on this host, one process after the other."""
    run = Run(scale)
    reader = Reader(run, progress)
    for name in names:
        try:
            with Console([str(program), name, str(scale), str(cpus)], engines.NATIVE.timeout) as console:
                for now, line in console.lines():
                    reader.take(now, line)
                console.wait()
                if console.process.returncode:
                    run.error = run.error or f"{name}: exit status {console.process.returncode}{console.last_words()}"
        except TimeoutError:
            run.error = run.error or f"{name}: not done after {engines.NATIVE.timeout} s"
    for result in run.results.values():
        result.ns_per_op = result.own_ns_per_op  # the host's clock too, and without the way through the pipe
    return run


def guest(command, timeout, scale, names, stats, progress):
    """Boots a guest that runs the workloads and powers off."""
    run = Run(scale)
    reader = Reader(run, progress)
    stats.unlink(missing_ok=True)
    done = False
    with Console(command, timeout) as console:
        try:
            for now, line in console.lines():
                word = reader.take(now, line)
                if word == "done" or word == "result" and names[-1] in run.results:  # nothing is timed any more
                    note_memory(run, console.process.pid)
                done = done or word == "done"
            run.total_s = console.wait()
            run.peak_bytes = console.usage.ru_maxrss * 1024
        except TimeoutError:
            run.error = run.error or f"not done after {timeout:.0f} s{console.last_words()}"
            return run
        if console.process.returncode:
            run.error = run.error or f"exit status {console.process.returncode}{console.last_words()}"
        elif not done:
            run.error = run.error or f"ended before the workloads did{console.last_words()}"
    lost = [name for name in names if name not in run.results]
    if lost and not run.error:
        run.error = f"no result of {', '.join(lost)}"
    read_stats(run, stats)
    return run


def read_stats(run, path):
    """What vireo's --stats adds; other engines leave no such file."""
    if not path.exists():
        return
    try:
        stats = json.loads(path.read_text())
    except ValueError as error:
        run.error = run.error or f"{path.name}: {error}"
        return
    run.stats = stats
    guest_ns = stats["time_ns"]["guest"]
    if guest_ns and stats["instructions"]:  # an engine may not count them
        run.instructions_per_s = stats["instructions"] * 1e9 / guest_ns
