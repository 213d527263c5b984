"""
A host with KVM for tests, where there is none: QEMU's TCG emulates AMD's SVM with nested paging, the default guest's kernel loads its
KVM modules in it, and vireo runs there with the libraries of the host that built it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import guest
import harness

QEMU = ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-display", "none", "-nodefaults",
        "-no-reboot", "-monitor", "none"]
APPEND = "console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check"
PATIENCE = harness.PATIENCE * 20
# Loads the modules in their order and has the shell find programs and their libraries.
PROLOGUE = """#!/bin/busybox sh
export PATH=/nest:$PATH LD_LIBRARY_PATH=/nest
for module in /kvm/*; do insmod $module || exit 1; done
cd /nest
"""


def libraries(program):
    """The shared objects that a program needs, as {path in the nest: content}; its loader where it looks for it."""
    text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    found = {}
    for path in re.findall(r"(/\S+) \(0x", text):
        name = Path(path).name
        found[f"lib64/{name}" if name.startswith("ld-") else f"nest/{name}"] = Path(path).read_bytes()
    return found


def files(programs, others):
    """The archive's content: programs (paths) with their libraries and other {name: path}, all in /nest; and the kernel's modules."""
    content = {}
    for program in programs:
        content[f"nest/{Path(program).name}"] = Path(program).read_bytes()
        content |= libraries(program)
    for name, path in others.items():
        content[f"nest/{name}"] = Path(path).read_bytes()
    for module in sorted((harness.GUEST / "kvm").iterdir()):
        content[f"kvm/{module.name}"] = module.read_bytes()
    return content


def run(directory, script, content, cpus=2, memory="1G", timeout=PATIENCE, options=()):
    """
    Boots the nest, with further options for QEMU, and runs a script of busybox's shell in /nest to its end. Returns its exit status, or None where it did not come to it, and the
    lines on the serial port.
    """
    initrd = directory / "nest.img"
    with open(initrd, "wb") as out:
        out.write((harness.GUEST / "initrd.img").read_bytes())
        out.write(bytes(-out.tell() % 512))
        out.write(guest.archive(content | {"nest/script": (PROLOGUE + script).encode()}))
    serial = directory / "serial"
    command = [*QEMU, "-serial", f"file:{serial}", "-smp", str(cpus), "-m", memory, "-kernel", harness.GUEST / "vmlinux",
               "-initrd", initrd, "-append", f"{APPEND} vireo.script=/nest/script", *options]
    try:
        note = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False).stderr
    except subprocess.TimeoutExpired:
        note = b"the nest's time is up"
    text = (serial.read_bytes() + b"\n" + note).decode(errors="replace")
    lines = [line for line in text.replace("\r", "").splitlines() if line]
    status = re.search(r"^vireo.script: exit status (\d+)$", "\n".join(lines), re.M)
    return int(status[1]) if status else None, lines


def prepare():
    """The guest that the nest and what runs in it are made of."""
    subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
