"""What the workloads run on. A new engine of vireo is one line in VIREO."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 512


@dataclass(frozen=True)
class Engine:
    name: str
    title: str
    scale: int  # the workloads' iterations are divided by this, so that a run takes seconds, not minutes
    boot: float  # seconds expected from start to power-off without workloads; for the estimate only
    slowdown: float  # the same: times the native duration of the workloads
    timeout: float  # seconds after which a run has failed

    def seconds(self, native, factor):
        """Estimate for one run; native: seconds the workloads take natively at scale 1."""
        return self.boot + self.slowdown * native / (self.scale * factor)


NATIVE = Engine("native", "native", scale=1, boot=0, slowdown=1.3, timeout=120)
QEMU = Engine("qemu", "QEMU TCG", scale=4, boot=3, slowdown=8, timeout=300)
VIREO = [
    Engine("bt", "vireo bt", scale=QEMU.scale, boot=2, slowdown=4, timeout=300),  # the peer's iterations: times compare directly
    Engine("interp", "vireo interp", scale=8, boot=6, slowdown=20, timeout=600),
]
ENGINES = [NATIVE, *VIREO, QEMU]


@dataclass(frozen=True)
class Guest:
    kernel: Path
    initrd: Path


def missing(engine, vireo):
    """Why the engine cannot run here, or None."""
    if engine is QEMU and not shutil.which("qemu-system-x86_64"):
        return "qemu-system-x86_64 is not installed"
    if engine in VIREO and not vireo.is_file():
        return f"{vireo} is not built"
    return None


def unknown(engine, vireo):
    """What this vireo says to an engine that it was built without; None where it has the engine."""
    if engine not in VIREO:
        return None
    # No guest starts: options are judged before files are opened, and this one cannot be.
    command_line = [str(vireo), "run", "--engine", engine.name, "--kernel", "/dev/null/none"]
    try:
        result = subprocess.run(command_line, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    except subprocess.TimeoutExpired:
        return f"{vireo} does not answer"
    line = result.stderr.partition("\n")[0]
    return line if "--engine" in line else None


def command(engine, guest, append, vireo, stats, cpus=1):
    """The command that starts a guest on the engine; stats: where vireo leaves its counters."""
    if engine is QEMU:
        return ["qemu-system-x86_64", "-accel", "tcg,thread=multi" if cpus > 1 else "tcg", "-M", "q35", "-cpu", "max",
                "-m", f"{MEMORY_MIB}M", "-smp", str(cpus),
                "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", str(guest.kernel), "-initrd", str(guest.initrd), "-append", append]
    return [str(vireo), "run", "--engine", engine.name, "--kernel", str(guest.kernel), "--initrd", str(guest.initrd),
            "--append", append, "--memory", f"{MEMORY_MIB}M", "--cpus", str(cpus), "--console", "stdio", "--no-reboot",
            "--stats", str(stats)]
