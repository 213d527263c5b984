"""
The default guest with more in it: archives laid over its initramfs, and one script that it runs to its end.
The kernel unpacks archives that follow each other, so an initramfs grows by appending to it.
"""

import os
import re
import shutil
import subprocess

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
APPEND = "console=ttyS0,115200 quiet panic=-1"
PATIENCE = harness.PATIENCE * 30
# What a kernel says on a host with much to do: how late an interrupt came.
BUSY = "interrupt took|hpet: Lost"
# What else it had to complain about, in a guest's script.
COMPLAINTS = f"dmesg -r | grep '^<[0-4]>' | grep -Ev '{BUSY}'"


def _entry(number, name, mode, data):
    """One file of a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(files):
    """A cpio archive of {name: content}, in one directory each at most, which is included; all may be executed."""
    entries = {name.rpartition("/")[0]: None for name in files if "/" in name} | files
    data = b""
    for number, (name, content) in enumerate(entries.items(), 1):
        data += _entry(number, name, 0o040755 if content is None else 0o100755, content or b"")
    data += _entry(0, "TRAILER!!!", 0, b"")
    return data + bytes(-len(data) % 512)


def programs(name):
    """The archive of Debian's packages for one of the names that tools/guest-programs knows, made if need be."""
    subprocess.run([harness.ROOT / "tools/guest-programs", name], check=True, stdout=subprocess.DEVNULL)
    return harness.ROOT / "guest-programs" / f"{name}.img"


def arguments(directory, script, files, *, archives=(), cpus=1, memory="512M", engine=ENGINE, options=(), append=""):
    """
    What starts the default guest with further archives, the files of {name: content}, and further options of `vireo run` and words for
    the kernel, to run a script there and power off. The initramfs is made in the directory.
    """
    subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
    initrd = directory / "initrd.img"
    with open(initrd, "wb") as out:
        for part in [harness.GUEST / "initrd.img", *archives]:
            with open(part, "rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
            out.write(bytes(-out.tell() % 512))
        out.write(archive(files))
    return ["run", "--engine", engine, "--kernel", harness.GUEST / "vmlinux", "--initrd", initrd, "--memory", memory, "--cpus", str(cpus),
            "--append", f'{APPEND} {append} vireo.script="echo begin; {script}"', "--no-reboot", *options]


def run(case, script, files, **kwargs):
    """
    Boots a guest by arguments(), and expects the script to end with status 0 and the guest to power off. Returns the lines that the script
    printed.
    """
    result = case.run_vireo(*arguments(case.dir, script, files, **kwargs), "--timeout", PATIENCE, timeout=PATIENCE + 60)
    lines = [line for line in result.stdout.decode(errors="replace").replace("\r", "").splitlines() if line]
    case.assertEqual(result.returncode, 0, "\n".join([result.stderr.decode(errors="replace"), *lines]))
    case.assertIn("vireo.script: exit status 0", lines, "\n".join(lines))
    return lines[lines.index("begin") + 1:lines.index("vireo.script: exit status 0")]


def cases(lines):
    """{name: whether it passed} of a program's lines of TAP, which must be complete."""
    found = {}
    for line in lines:
        match = re.match(r"(not )?ok (\d+) - (\w+)", line)
        if match and int(match[2]) == len(found) + 1:
            found[match[3]] = not match[1]
    if f"1..{len(found)}" not in lines:
        raise AssertionError("no plan, or not all it says:\n" + "\n".join(lines))
    return found


def run_cases(case, program, arguments, cpus):
    """Runs a static program with lines of TAP in a guest, and expects all to pass and the kernel to be content. Returns the names."""
    script = f"#!/bin/busybox sh\n/test/{program.name} {arguments}; {COMPLAINTS} && exit 1; exit 0\n"
    lines = run(case, "/test/run", {f"test/{program.name}": program.read_bytes(), "test/run": script.encode()}, cpus=cpus)
    found = cases(lines)
    case.assertEqual([name for name, passed in found.items() if not passed], [], "\n".join(lines))
    return list(found)
