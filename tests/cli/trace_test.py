"""`vireo run --trace` and `--perf-map`: what an engine tells of its work. Guests of a few instructions."""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position



class Trace(harness.Case):
    """Each a guest's life on an engine, as lines."""

    def trace(self, kinds, engine, kernel="debug", status=0x2B):
        """The lines in the file; nothing of them on standard error."""
        path = self.dir / "trace"
        result = self.run_vireo("run", "--engine", engine, "--kernel", self.kernel(kernel), "--debug-exit", "--trace", kinds,
                                "--trace-file", path)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertNotIn(b"cpu 0", result.stderr)
        return path.read_text().splitlines()

    def test_exits(self):
        """Where and why, and nothing else."""
        for engine in ("interp", "bt"):
            lines = self.trace("exits", engine)
            self.assertRegex(lines[0], "^cpu 0 exit pio_out 0xf4 at 10006[0-9a-f]$")
            self.assertTrue(all(re.match("cpu 0 exit (kick|hlt|pio_out)", line) for line in lines), lines)
            lines = self.trace("exits", engine, "crash", 3)
            self.assertRegex("\n".join(lines), "cpu 0 exit exception 0xd at 100067\ncpu 0 exit exception 0x8 at 100067\n")
            self.assertRegex(lines[-1], "^cpu 0 exit shutdown 0 at ")

    def test_blocks(self):
        """The guest's code; with the translator, the host's beside it, and the ways in and out."""
        lines = self.trace("blocks", "interp")
        self.assertRegex(lines[0], r"^cpu 0 block 100060 cpl 0 32-bit: \d+ bytes, the host's 0 at 0$")
        self.assertEqual([line.split("  ", 2)[2] for line in lines[1:4]], ["mov dx, 0xF4", "mov al, 0x15", "out dx, al"])
        lines = self.trace("exits,blocks", "bt")
        begin = next(i for i, line in enumerate(lines) if line.startswith("cpu 0 block 100060"))
        self.assertRegex(lines[begin], r"cpl 0 32-bit: \d+ bytes, the host's [1-9]\d* at [0-9a-f]+$")
        self.assertRegex(lines[begin + 1], r"^  100060  mov dx, 0xF4 +[0-9a-f]+  \w+")
        self.assertTrue(lines[0].startswith("cpu 0 code enter: "))
        self.assertTrue(any(line.startswith("cpu 0 exit pio_out") for line in lines))

    def test_standard_error(self):
        """Without a file."""
        result = self.run_vireo("run", "--kernel", self.kernel("debug"), "--debug-exit", "--trace", "exits")
        self.assertRegex(result.stderr, b"^cpu 0 exit pio_out 0xf4 at 10006[0-9a-f]\n")

    def test_full(self):
        """A file that cannot take it all is an error, and said."""
        result = self.run_vireo("run", "--kernel", self.kernel("debug"), "--debug-exit", "--trace", "exits", "--trace-file", "/dev/full")
        self.one_line(result, 1, "--trace-file", "/dev/full", "No space left")

    def test_perf_map(self):
        """Addresses, lengths and names that lie in the code's memory."""
        process = subprocess.Popen([harness.VIREO, "run", "--engine", "bt", "--kernel", self.kernel("idle"), "--perf-map"],
                                   stdin=subprocess.DEVNULL, stdout=-1)
        path = Path(f"/tmp/perf-{process.pid}.map")
        self.addCleanup(lambda: path.unlink(missing_ok=True))
        self.assertEqual(process.stdout.readline(), b"ready\r\n")
        mappings = [re.match(r"([0-9a-f]+)-([0-9a-f]+) r-xs .* /dev/zero \(deleted\)", line)
                    for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()]
        ranges = [(int(m[1], 16), int(m[2], 16)) for m in mappings if m]
        lines = path.read_text().splitlines()
        process.terminate()
        process.wait(harness.PATIENCE)
        process.stdout.close()
        names = []
        for line in lines:
            start, size, name = line.split(" ")
            self.assertTrue(any(a <= int(start, 16) and int(start, 16) + int(size, 16) <= b for a, b in ranges), (line, ranges))
            names.append(name)
        self.assertIn("vireo:enter", names)
        self.assertIn("guest:kernel32:100060", names)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o644)


class Interrupts(harness.Case):
    """With a real kernel."""

    def test_irq(self):
        """The timer's vector, where it came and where it led."""
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        path = self.dir / "trace"
        self.run_vireo("run", "--engine", "bt", "--kernel", harness.GUEST / "vmlinux", "--trace", "irq", "--trace-file", path, "--append",
                       "console=ttyS0 panic=-1", "--no-reboot", timeout=harness.PATIENCE)
        lines = path.read_text().splitlines()
        self.assertGreater(len(lines), 5)
        for line in lines:
            self.assertRegex(line, r"^cpu 0 irq vector 0x[0-9a-f]{2} acknowledged at [0-9a-f]+, delivered to ffffffff[0-9a-f]{8}$")


if __name__ == "__main__":
    harness.main()
