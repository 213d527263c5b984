"""What is measured: the workloads' programs and the initramfs of a guest that runs them."""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = ROOT / "bench/workloads"
CFLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-march=x86-64-v2", "-ffp-contract=off", "-pthread",
          "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wundef", "-Wvla"]
LINKER_CACHE = Path("/etc/ld.so.cache")  # without it the guest's dynamic linker would look in more places than the host's


class Failure(Exception):
    """Something the user can read and mend."""


@dataclass(frozen=True)
class Workload:
    group: str  # whose mean it counts in
    name: str
    unit: str  # what one operation is


@dataclass(frozen=True)
class Programs:
    workloads: Path  # static
    dynamic: Path  # what one of them starts: linked with the host's C library, which the guest then needs too


def _compile(program, sources, *more):
    cc = shlex.split(os.environ.get("CC", "cc"))
    return subprocess.run([*cc, *CFLAGS, "-o", str(program), *sorted(map(str, sources)), *more], check=False).returncode == 0


def build_programs(out):
    """Compiles the workloads with $CC."""
    programs = Programs(out / "bench-workloads", out / "bench-dynamic")
    if not _compile(programs.workloads, WORKLOADS.glob("*.c"), "-static", "-lz", "-lm"):
        raise Failure("the workloads do not compile; they need zlib's static library (zlib1g-dev)")
    if not _compile(programs.dynamic, (WORKLOADS / "dynamic").glob("*.c")):
        raise Failure("the dynamically linked program does not compile")
    return programs


def workloads(programs):
    """All there are, in the order of the table."""
    lines = subprocess.run([str(programs.workloads), "--list"], check=True, capture_output=True, text=True).stdout.splitlines()
    return [Workload(*line.split(" ", 2)) for line in lines]


def libraries(program):
    """The files that the dynamic linker loads for a program, itself included."""
    listing = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listing)]


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


def _archive(files):
    """files: {absolute path: (mode, contents)}. A cpio archive of them and of the directories they lie in, those first."""
    directories = {parent for path in files for parent in path.parents if parent != Path("/")}
    entries = [(path, 0o40755, b"") for path in sorted(directories)]
    entries += [(path, 0o100000 | mode, data) for path, (mode, data) in files.items()]
    archive = b"".join(_entry(number, str(path)[1:], mode, data) for number, (path, mode, data) in enumerate(entries, 1))
    return archive + _entry(0, "TRAILER!!!", 0, b"")


def build_initrd(base, programs, out):
    """The default guest's initramfs with a few files laid over it: the kernel unpacks archives that follow each other."""
    initrd = out / "initrd.img"
    files = {Path("/bench-init"): (0o755, (ROOT / "bench/guest-init").read_bytes())}
    for program in (programs.workloads, programs.dynamic):
        files[Path("/bin") / program.name] = (0o755, program.read_bytes())
    for library in libraries(programs.dynamic):
        files[library] = (0o755, library.read_bytes())
    if LINKER_CACHE.is_file():
        files[LINKER_CACHE] = (0o644, LINKER_CACHE.read_bytes())
    data = base.read_bytes()
    initrd.write_bytes(data + bytes(-len(data) % 512) + _archive(files))
    return initrd


def append(names, scale, cpus=1):
    """The guest's kernel command line."""
    return (f"console=ttyS0 quiet panic=-1 rdinit=/bench-init bench_list={','.join(names)} bench_scale={scale} "
            f"bench_cpus={cpus}")
