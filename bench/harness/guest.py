"""What is measured: the workloads' program and the initramfs of a guest that runs it."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CFLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-march=x86-64-v2", "-ffp-contract=off", "-static", "-pthread",
          "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wundef", "-Wvla"]


class Failure(Exception):
    """Something the user can read and mend."""


def build_workloads(out):
    """Compiles the workloads with $CC; returns the program."""
    program = out / "bench-workloads"
    sources = sorted(map(str, (ROOT / "bench/workloads").glob("*.c")))
    result = subprocess.run([*shlex.split(os.environ.get("CC", "cc")), *CFLAGS, "-o", str(program), *sources, "-lm"], check=False)
    if result.returncode:
        raise Failure("the workloads do not compile")
    return program


def workload_units(program):
    """{name: what one operation is}, in the order of the table."""
    lines = subprocess.run([str(program), "--list"], check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split(" ", 1) for line in lines)


def default_guest():
    """Kernel and initramfs of the default guest, prepared if need be."""
    prepare = ROOT / "tools/guest-prepare"
    if prepare.exists() and subprocess.run([str(prepare)], check=False).returncode:
        raise Failure("tools/guest-prepare failed")
    kernel, initrd = ROOT / "guest/vmlinux", ROOT / "guest/initrd.img"
    for file in (kernel, initrd):
        if not file.is_file():
            raise Failure(f"{file} is not there; tools/guest-prepare makes it")
    return kernel, initrd


def _entry(number, name, mode, data):
    """One file of a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    head = header + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def build_initrd(base, program, out):
    """The default guest's initramfs with two files laid over it: the kernel unpacks archives that follow each other."""
    initrd = out / "initrd.img"
    overlay = _entry(1, "bench-init", 0o100755, (ROOT / "bench/guest-init").read_bytes())
    overlay += _entry(2, "bin/bench-workloads", 0o100755, program.read_bytes())
    overlay += _entry(0, "TRAILER!!!", 0, b"")
    data = base.read_bytes()
    initrd.write_bytes(data + bytes(-len(data) % 512) + overlay)
    return initrd


def append(names, scale):
    """The guest's kernel command line."""
    return f"console=ttyS0 quiet panic=-1 rdinit=/bench-init bench_list={','.join(names)} bench_scale={scale}"
