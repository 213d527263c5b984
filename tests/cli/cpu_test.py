"""--cpu: what a guest reads by CPUID is the same on every engine, and what a host cannot offer is refused."""

import re
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MODELS = ["host", "x86-64-v2", "x86-64-v3"]
LEAVES = [*((leaf, 0) for leaf in range(0x17)), *((4, i) for i in range(1, 5)), (7, 1), (7, 2), (0xB, 1), (0xB, 2), (0xD, 1), (0xD, 2),
          *((0x40000000 + i, 0) for i in range(0x11)), *((0x80000000 + i, 0) for i in range(9)), (0x7FFFFFFF, 0)]
BUFFER = 0x200000


def dumper():
    """A kernel that writes EAX, EBX, ECX and EDX of each leaf to COM1, as they are, and ends."""
    table = harness.LOAD + 0x1000
    asks = bytes.fromhex("8b06 8b4e04 0fa2") + b"".join(
        code + struct.pack("<I", BUFFER + 4 * i) for i, code in enumerate((b"\xa3", b"\x89\x1d", b"\x89\x0d", b"\x89\x15")))
    puts = harness.WAIT_TX + bytes.fromhex("8a07 66baf803 ee 47 4d")
    puts += b"\x75" + struct.pack("<b", -len(puts) - 2)
    once = asks + b"\xbf" + struct.pack("<I", BUFFER) + b"\xbd\x10\0\0\0" + puts + bytes.fromhex("83c608 81fe")
    once += struct.pack("<I", table + 8 * len(LEAVES)) + b"\x0f\x85"
    once += struct.pack("<i", -len(once) - 4)
    code = b"\xbe" + struct.pack("<I", table) + once + harness.outb(0xF4, 0x15) + harness.HALT
    head = len(harness.elf(b""))
    return harness.elf(code.ljust(0x1000 - head, b"\0") + b"".join(struct.pack("<II", *leaf) for leaf in LEAVES))


class Cpu(harness.Case):
    """The option from outside."""

    def dump(self, engine, model):
        """What the guest reads, or the line that refuses it."""
        kernel, console = self.dir / "dumper", self.dir / "console"
        kernel.write_bytes(dumper())
        result = self.run_vireo("run", "--engine", engine, "--cpu", model, "--kernel", kernel, "--debug-exit", "--console",
                                f"file:{console}", "--timeout", "60")
        if result.returncode != 0x2B:
            self.one_line(result, 1)
            return result.stderr.decode()
        data = console.read_bytes()
        self.assertEqual(len(data), 16 * len(LEAVES))
        return {leaf: struct.unpack_from("<4I", data, 16 * i) for i, leaf in enumerate(LEAVES)}

    def test_same_everywhere(self):
        """The two engines that every host runs; and KVM, where it can, but for the TSC's rate."""
        for model in MODELS:
            with self.subTest(model=model):
                table = self.dump("interp", model)
                if isinstance(table, str):  # a host of a level below
                    self.assertRegex(table, f"CPU model {model}: this host's CPU lacks [a-z]")
                    continue
                self.assertEqual(table, self.dump("bt", model))
                other = self.dump("kvm", model)
                if isinstance(other, str):
                    self.assertRegex(other, "/dev/kvm|" + re.escape(f"CPU model {model}: this host's KVM lacks "))
                elif model != "host":
                    rates = [(0x15, 0), (0x16, 0), (0x40000010, 0), (0x7FFFFFFF, 0)]
                    self.assertEqual({k: v for k, v in table.items() if k not in rates},
                                     {k: v for k, v in other.items() if k not in rates})

    def test_features(self):
        """What tells the models apart."""
        def has(table, leaf, reg, bit):
            return table[leaf][reg] >> bit & 1

        v2 = self.dump("bt", "x86-64-v2")
        if isinstance(v2, str):
            self.skipTest(v2)
        self.assertTrue(has(v2, (1, 0), 2, 20))  # SSE4.2
        self.assertFalse(has(v2, (1, 0), 2, 28) or has(v2, (7, 0), 1, 5) or v2[0xD, 0][0])  # AVX, AVX2, XSAVE
        brand = b"".join(struct.pack("<4I", *v2[leaf, 0]) for leaf in (0x80000002, 0x80000003, 0x80000004))
        self.assertEqual(brand.rstrip(b"\0"), b"vireo virtual CPU x86-64-v2")
        v3 = self.dump("bt", "x86-64-v3")
        if isinstance(v3, str):
            self.skipTest(v3)
        self.assertTrue(has(v3, (1, 0), 2, 28) and has(v3, (7, 0), 1, 5) and v3[0xD, 0][0] == 7)

    def test_wrong_use(self):
        """Models there are not."""
        for model in ("", "x86-64-v4", "host|x86-64-v2", "Host"):
            self.one_line(self.run_vireo("run", "--cpu", model), 2, "--cpu", f"'{model}'", "host|x86-64-v2|x86-64-v3")


if __name__ == "__main__":
    harness.main()
