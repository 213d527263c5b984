"""
What it costs to start: the CPU time of a monitor's process from exec to its guest's first instructions, and its memory beside the guest's then; and,
where KVM runs guests on the CPU, until Linux's init. vireo's engines beside QEMU's microvm machine and kvmtool, which are made for that.
"""

import json
import shutil
import statistics
import struct
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from . import guest, latency
from .measure import MIB, Console, memory_of

NAME = "start"
MEMORY = 128  # MiB
FIRST = b"first"  # what the small guest writes
TIMEOUT = 60
LINUX_TIMEOUT = 120
CPU_AIM_MS, MEMORY_AIM_MIB = 8, 5
LOAD = 0x100000


def kernel():
    """A guest that writes a line to COM1 and halts: an ELF64 file with a PVH note (Xen's ABI, XEN_ELFNOTE_PHYS32_ENTRY)."""
    code = bytes.fromhex("66baf803") + b"".join(bytes([0xB0, byte, 0xEE]) for byte in FIRST + b"\n") + bytes.fromhex("fa f4 ebfd")
    headers = 64 + 2 * 56
    note_at, entry = headers, headers + 24
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", LOAD + entry)
    size = entry + len(code)
    ehdr = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOAD + entry, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, LOAD, LOAD, size, size, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, LOAD + note_at, LOAD + note_at, len(note), len(note), 4)
    return ehdr + load + notes + note + code


@dataclass
class Row:
    """A monitor on one kind of engine."""
    title: str
    command: list  # without the kernel
    skipped: str = None  # why it does not run here
    cpu_ms: list = field(default_factory=list)
    own_mib: list = field(default_factory=list)
    init_ms: list = field(default_factory=list)  # of Linux: from exec, by the clock
    init_mib: list = field(default_factory=list)
    init_exits: list = field(default_factory=list)  # as KVM counts them


def real_kvm(vireo):
    """Why there is no KVM that runs guests on the CPU, or None."""
    text = subprocess.run([vireo, "engines", "--json"], check=True, capture_output=True, text=True).stdout
    return next((engine["reason"] for engine in json.loads(text) if engine["name"] == "kvm"), "vireo has no engine kvm")


def rows(vireo, no_kvm):
    """Those there are; no_kvm: why KVM is not to be used, or None."""
    run = [str(vireo), "run", "--memory", f"{MEMORY}M", "--console", "stdio", "--no-reboot"]
    qemu = ["qemu-system-x86_64", "-M", "microvm", "-cpu", "max", "-m", f"{MEMORY}M", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-accel"]
    lkvm = shutil.which("lkvm") or shutil.which("kvmtool")
    no_qemu = None if shutil.which(qemu[0]) else "qemu-system-x86_64 is not installed"
    return [Row("vireo bt", [*run, "--engine", "bt"]),
            Row("vireo kvm", [*run, "--engine", "kvm"], None if Path("/dev/kvm").exists() else "no /dev/kvm"),
            Row("QEMU microvm, TCG", [*qemu, "tcg"], no_qemu),
            Row("QEMU microvm, KVM", [*qemu, "kvm"], no_qemu or no_kvm),
            Row("kvmtool", [lkvm or "lkvm", "run", "--mem", str(MEMORY)], no_kvm if lkvm else "it is not installed")]


def small(row, command):
    """The small guest once."""
    with Console(command, TIMEOUT) as console:
        for _, line in console.lines():
            if FIRST in line:
                break
        else:
            raise guest.Failure(f"ended before its guest began{console.last_words()}")
        pid = console.process.pid
        row.cpu_ms.append(latency.cpu_ns(pid) / 1e6)
        row.own_mib.append(own(pid))


def own(pid):
    """MiB beside the guest's pages."""
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as smaps:
        return memory_of(smaps, MEMORY * MIB)[1] / MIB


def linux(row, command):
    """The default guest, until its shell."""
    with Console(command, LINUX_TIMEOUT) as console:
        for now, line in console.lines():
            if latency.READY in line:
                break
        else:
            raise guest.Failure(f"ended before it was at init{console.last_words()}")
        pid = console.process.pid
        row.init_ms.append(now * 1e3)
        row.init_mib.append(own(pid))
        for path in Path("/sys/kernel/debug/kvm").glob(f"{pid}-*/exits"):
            row.init_exits.append(int(path.read_text(encoding="ascii")))


def run(vireo, rounds, progress):
    """Rows, and why those of Linux are skipped or None."""
    no_kvm = real_kvm(vireo)
    found = rows(vireo, no_kvm)
    with tempfile.TemporaryDirectory(prefix="vireo-start-") as directory:
        image = Path(directory) / "first"
        image.write_bytes(kernel())
        for turn in range(rounds):
            for row in found if turn % 2 == 0 else reversed(found):
                if row.skipped:
                    continue
                progress(f"{row.title}, {turn + 1}/{rounds}")
                try:
                    small(row, [*row.command, "--kernel" if "QEMU" not in row.title else "-kernel", str(image)])
                    if not no_kvm and "TCG" not in row.title and "bt" not in row.title:
                        boot, initrd = guest.default_guest()
                        dash = "-" if "QEMU" in row.title else "--"
                        linux(row, [*row.command, f"{dash}kernel", str(boot), f"{dash}initrd", str(initrd),
                                    "--params" if row.title == "kvmtool" else f"{dash}append", "console=ttyS0 quiet panic=-1"])
                except (guest.Failure, TimeoutError, OSError) as error:
                    row.skipped = str(error) or f"not done after {TIMEOUT} s"
    return found, no_kvm


def _figures(values, aim=None, peer=None):
    """Median, how many times as good as the peer, whether the aim is met."""
    if not values:
        return ["-", "-", "-"]
    value = statistics.median(values)
    return [f"{value:.2f}", f"{peer / value:.1f}" if peer and value else "-", "-" if aim is None else "yes" if value <= aim else "no"]


def table(found, no_kvm, rounds):
    """Lines for people."""
    peer = next((row for row in found if "QEMU" in row.title and row.cpu_ms), None)
    cpu_peer, memory_peer = (statistics.median(values) if values else None
                             for values in ((peer.cpu_ms, peer.own_mib) if peer else ((), ())))
    cells = [("start", "CPU, ms", "times as good", "<= 8", "beside guest, MiB", "times as good", "<= 5")]
    for row in found:
        ours = row.title.startswith("vireo")
        cells.append((row.title, *_figures(row.cpu_ms, CPU_AIM_MS if ours else None, cpu_peer),
                      *_figures(row.own_mib, MEMORY_AIM_MIB if ours else None, memory_peer)))
    widths = [max(len(cell[i]) for cell in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(text.rjust(width) if i else text.ljust(width) for i, (text, width) in enumerate(zip(cell, widths))).rstrip()
             for cell in cells]
    lines += [f"{row.title}: skipped: {row.skipped}" for row in found if row.skipped]
    lines.append(f"Medians of {rounds} runs that took turns: one vCPU, {MEMORY} MiB, from exec until the guest's first line has come; times as good: "
                 "as QEMU's first row.")
    if no_kvm:
        lines.append(f"Linux to init on KVM: skipped: {no_kvm}")
    for row in (row for row in found if row.init_ms):
        exits = f", {statistics.median(row.init_exits):.0f} VM exits" if row.init_exits else ""
        lines.append(f"Linux to init, {row.title}: {statistics.median(row.init_ms):.0f} ms, {statistics.median(row.init_mib):.1f} MiB beside the "
                     f"guest's{exits}")
    return lines


def as_json(found, no_kvm):
    """Every run."""
    return {"rows": [row.__dict__ for row in found], "linux_skipped": no_kvm}
