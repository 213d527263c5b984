"""
The KVM engine where KVM runs guests on a CPU: in a nest (nest.py). One boot of it serves all; each case looks at its part of what came out.

usage: nest_test.py VIREO ASM_RUN UNIT UNIT_IRQCHIP UNIT_MEMORY ASM_SOURCES IMAGE...
"""

import re
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import nest
import harness

ASM_RUN, UNIT, UNIT_IRQCHIP, UNIT_MEMORY, SOURCES, *IMAGES = (Path(argument).resolve() for argument in sys.argv[2:])
BOOT = ("vireo run --engine kvm --kernel vmlinux --initrd initrd.img --memory 128M --irqchip %s --cpus %d --no-reboot --timeout 300 "
        "--append 'console=ttyS0 quiet panic=-1 vireo.script=\"nproc; cat /proc/uptime; dd if=/dev/hwrng of=/dev/null bs=64 count=20\"' "
        "--stats stats.json </dev/null && grep -m1 hlt stats.json")


def images():
    """The images that the nest's CPU runs as a real one would."""
    lines = (Path(__file__).parent / "asm_not_here").read_text().splitlines()
    not_here = [line.split()[0] for line in lines if line and not line.startswith("#")]
    sources = {image: (SOURCES / f"{image.stem}.S").read_text() for image in IMAGES}
    return [image for image in IMAGES if not any(fnmatch(image.stem, pattern) for pattern in not_here) and
            ("\n//- qemu:" not in sources[image] or "\n//- cpu:" in sources[image])]


def part(name, command):
    """Lines of a script that run a command between two marks."""
    return f"echo '== {name}'\n{command} 2>&1\necho '== {name} ends with' $?\n"


class Nest(harness.Case):
    """What ran in there."""

    @classmethod
    def setUpClass(cls):
        nest.prepare()
        cls.images = images()
        others = {"vmlinux": harness.GUEST / "vmlinux", "initrd.img": harness.GUEST / "initrd.img"}
        others |= {image.name: image for image in cls.images}
        others |= {f"{image.stem}.S": SOURCES / f"{image.stem}.S" for image in cls.images}
        script = "".join(part(name, f"VIREO_TEST_KVM=1 CMOCKA_MESSAGE_OUTPUT=TAP {unit.name}") for name, unit in
                         (("unit", UNIT), ("irqchips", UNIT_IRQCHIP), ("memory", UNIT_MEMORY)))
        script += part("asm", f"{ASM_RUN.name} --engine kvm . *.bin")
        script += part("one cpu", BOOT % ("user", 1)) + part("split", BOOT % ("auto", 2)) + part("kernel", BOOT % ("kernel", 2))
        with tempfile.TemporaryDirectory(prefix="vireo-nest-") as directory:
            _, cls.lines = nest.run(Path(directory), script, nest.files([harness.VIREO, ASM_RUN, UNIT, UNIT_IRQCHIP, UNIT_MEMORY], others))

    def part(self, name):
        """The lines of a part, which must have ended well."""
        everything = "\n".join(self.lines)
        self.assertIn(f"== {name}", self.lines, everything)
        at = self.lines.index(f"== {name}")
        end = next((i for i, line in enumerate(self.lines) if line.startswith(f"== {name} ends with")), None)
        self.assertIsNotNone(end, everything)
        lines = self.lines[at + 1:end]
        self.assertEqual(self.lines[end], f"== {name} ends with 0", "\n".join(lines))
        return lines

    def test_api(self):
        """The engine's unit test on a CPU that has SVM."""
        skipped = [line for line in self.part("unit") if "SKIP" in line]
        self.assertEqual(len(skipped), 1, skipped)  # breakpoints: see asm_not_here

    def test_irqchips(self):
        """The kernel's interrupt controllers, and which pages the guest writes."""
        for name in ("irqchips", "memory"):
            self.assertNotIn("SKIP", "\n".join(self.part(name)))

    def test_asm(self):
        """The images end with the registers that they end with on every engine."""
        lines = self.part("asm")
        passed = [line for line in lines if re.match(r"ok - ", line)]
        self.assertEqual(len(passed), len(self.images))

    def boot(self, name, cpus):
        """Debian's kernel to init and power-off."""
        lines = self.part(name)
        self.assertIn(str(cpus), lines)
        self.assertIn("vireo.script: exit status 0", lines)
        return lines

    def test_one_cpu(self):
        """One vCPU, with the machine's own interrupt controllers: it leaves for each HLT."""
        self.assertNotIn('    "hlt": 0,', self.boot("one cpu", 1))

    def test_split(self):
        """Two, with local APICs in the kernel."""
        self.assertIn('    "hlt": 0,', self.boot("split", 2))

    def test_kernel(self):
        """All interrupt controllers in the kernel."""
        self.assertIn('    "hlt": 0,', self.boot("kernel", 2))


if __name__ == "__main__":
    del sys.argv[2:]  # what the harness would take for names of tests
    harness.main()
