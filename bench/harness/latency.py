"""
What an engine costs when its guest has nothing to do, and how soon it is there when there is something: the CPU time of an idle
guest's process, and how late the local APIC's timer comes to a guest that is busy with something else (bench/timer/timer.c).
"""

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import engines
from .guest import ROOT, Failure
from .measure import Console

TIMER = ROOT / "bench/timer"
TIMER_CFLAGS = ["-m32", "-std=gnu17", "-O2", "-ffreestanding", "-nostdlib", "-static", "-fno-pic", "-fno-stack-protector",
                "-fcf-protection=none", "-mgeneral-regs-only", "-Wall", "-Wextra", "-Werror", "-Wl,--build-id=none",
                "-Wl,--no-warn-rwx-segments", f"-Wl,-T,{TIMER / 'timer.ld'}"]
TIMER_LINE = re.compile(rb"timer: (?:result (\w+) ticks \d+ median (\d+) p99 (\d+) worst (\d+)|(done))")
TIMER_SECONDS = 6  # when all is well
READY = b"poweroff ends it"  # the default guest, before its shell's first prompt
SETTLE_SECONDS = 3  # what a shell and the kernel still do after that
IDLE_SECONDS = 10

IDLE, TIMERS = "idle", "timer"  # to be named beside the workloads
NAMES = (IDLE, TIMERS)


@dataclass
class Latency:
    """What came of an engine's one run of each. What is None or absent was not measured."""
    idle_percent: float = None  # of one CPU, all threads of the process
    timers: dict = field(default_factory=dict)  # what the guest does: (median, 99th percentile, worst), ns late
    error: str = None


def build_timer(out):
    """Compiles the guest with $CC."""
    image = out / "bench-timer"
    cc = shlex.split(os.environ.get("CC", "cc"))
    if subprocess.run([*cc, *TIMER_CFLAGS, "-o", str(image), str(TIMER / "timer.c")], check=False).returncode:
        raise Failure("the guest of the timer's measurement does not compile")
    return image


def idle_command(engine, guest, vireo):
    """An idle guest on the engine: the default one at its prompt."""
    return engines.command(engine, guest, "console=ttyS0 quiet panic=-1", vireo, Path("/dev/null"))


def timer_command(engine, image, vireo):
    """The timer's guest on the engine."""
    if engine is engines.QEMU:
        return ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "64M", "-nodefaults", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", str(image)]
    return [str(vireo), "run", "--engine", engine.name, "--kernel", str(image), "--memory", "64M", "--console", "stdio",
            "--no-reboot"]


def cpu_ns(pid):
    """CPU time of all threads the process has, in ns."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(path.read_text(encoding="ascii").split()[0])
    return total


def idle(command, timeout, seconds, settle):
    """Percent of a CPU that the guest takes for some seconds, once it is ready and has settled."""
    with Console(command, timeout) as console:
        for _, line in console.lines():
            if READY in line:
                break
        else:
            raise Failure(f"ended before it was idle{console.last_words()}")
        time.sleep(settle)
        start, before = time.monotonic(), cpu_ns(console.process.pid)
        time.sleep(seconds)
        return (cpu_ns(console.process.pid) - before) / (time.monotonic() - start) / 1e7


def timers(command, timeout):
    """{what the guest does: (median, 99th percentile, worst)} in ns."""
    results = {}
    with Console(command, timeout) as console:
        for _, line in console.lines():
            match = TIMER_LINE.search(line)
            if match and match[5]:
                return results
            if match:
                results[match[1].decode()] = tuple(int(match[i]) for i in (2, 3, 4))
        raise Failure(f"ended before the timers did{console.last_words()}")


def measure(names, commands, timeout, seconds, progress, settle=SETTLE_SECONDS):
    """names: of NAMES; commands: a command for each. Never raises for what a guest does."""
    latency = Latency()
    for name in names:
        progress(name)
        try:
            if name == IDLE:
                latency.idle_percent = idle(commands[name], timeout, seconds, settle)
            else:
                latency.timers = timers(commands[name], timeout)
        except TimeoutError:
            latency.error = latency.error or f"{name}: not done after {timeout:.0f} s"
        except (Failure, OSError) as error:
            latency.error = latency.error or f"{name}: {error}"
    return latency


def add(summary, latency):
    """Puts it among an engine's figures."""
    summary.system["idle_percent"] = latency.idle_percent
    summary.system.update({f"timer_{name}_ns": value for name, value in latency.timers.items()})
    if latency.error:
        summary.errors.append(latency.error)


def _late(value):
    return " / ".join(f"{ns / 1000:.0f}" for ns in value)


ROWS = [  # (key, label, how it is shown)
    ("idle_percent", "idle guest, % of a CPU", "{:.2f}".format),
    ("timer_loop_ns", "timer late in a loop, us", _late),
    ("timer_copy_ns", "  in REP MOVSB", _late),
    ("timer_halt_ns", "  in HLT", _late),
]
