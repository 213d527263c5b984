#!/usr/bin/python3
"""
stress-ng in a guest: every stressor of its classes cpu, vm, scheduler (with fork and futex) and interrupt (signals), one after the
other, an instance for each vCPU, with --verify. Says how each ended, and ends with "N passed, N failed"; the exit status is 0 when none
failed, 1 else, 2 for wrong use.

A stressor fails when stress-ng says so, when it does not end, or when the kernel reports a fault of its own meanwhile. What this guest has
not (a device, a kernel option) is skipped, by stress-ng's own word.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guest
import harness

CLASSES = ["cpu", "vm", "scheduler", "interrupt"]
LEFT_OUT = ["softlockup"]  # what it is for is the very report of a fault that is looked for
ALONE = ["physpage"]  # its instances take away each other's MTRRs
SCRIPT = (Path(__file__).parent / "stress-guest").read_bytes()
MARK = re.compile(r"stress: (begin|pass|skip|fail|plan|done) ?(.*)")


def arguments():
    """The command line."""

    def number(text):
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 up")
        return int(text)

    parser = argparse.ArgumentParser(description="Runs stress-ng in a guest.")
    parser.add_argument("vireo", type=Path, help="vireo's executable")
    parser.add_argument("--minutes", metavar="N", type=number, default=60, help="that all of it shall take (default: 60)")
    parser.add_argument("--engine", metavar="NAME", default="auto", help="(default: auto)")
    parser.add_argument("--cpus", metavar="N", type=number, default=4, help="vCPUs, and instances of each stressor (default: 4)")
    parser.add_argument("--memory", metavar="SIZE", default="2G", help="(default: 2G)")
    parser.add_argument("stressors", metavar="STRESSOR", nargs="*", help="only these")
    return parser.parse_intermixed_args()


def clock(seconds):
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Report:
    """What the guest's script says, made readable as it comes."""

    def __init__(self, minutes):
        self.minutes = minutes
        self.start = time.monotonic()
        self.total = self.passed = self.failed = self.skipped = 0
        self.done = False
        self.name = None  # of the stressor that runs now

    def line(self, text):
        """A line of the guest's console. Those of a stressor that failed are shown as they are."""
        match = MARK.match(text)
        if not match:
            if not self.done:
                print(f"    {text}", flush=True)
            return
        word, rest = match.groups()
        if word == "plan":
            self.total = int(rest)
            print(f"{self.total} stressors in {self.minutes} minutes", flush=True)
        elif word == "done":
            self.done = True
        elif word == "begin":
            self.name = rest
        else:
            self.passed += word == "pass"
            self.failed += word == "fail"
            self.skipped += word == "skip"
            at = self.passed + self.failed + self.skipped
            print(f"{clock(time.monotonic() - self.start)} {at}/{self.total} {word.upper()} {rest}", flush=True)
            self.name = None

    def end(self, status):
        """The last lines. Returns the exit status."""
        if status or not self.done:
            self.failed += 1
            during = f" during {self.name}" if self.name else ""
            print(f"FAIL: the guest ended{during} before its work, vireo with status {status}")
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped in {clock(time.monotonic() - self.start)}")
        print("FAIL" if self.failed or not self.passed else "PASS", flush=True)
        return 1 if self.failed or not self.passed else 0


def main():
    """Runs the guest and reports."""
    args = arguments()
    seconds = args.minutes * 60
    settings = f"seconds={seconds}\ncpus={args.cpus}\nclasses='{' '.join(CLASSES)}'\nleft_out='{' '.join(LEFT_OUT)}'\n" \
               f"alone='{' '.join(ALONE)}'\nstressors='{' '.join(args.stressors)}'\n"
    with tempfile.TemporaryDirectory(prefix="vireo-stress-") as directory:
        command = guest.arguments(Path(directory), "/test/run", {"test/run": SCRIPT, "test/settings": settings.encode()},
                                  archives=[guest.programs("stress-ng")], cpus=args.cpus, memory=args.memory, engine=args.engine)
        command += ["--timeout", str(2 * seconds + 1800)]
        report = Report(args.minutes)
        with subprocess.Popen([harness.VIREO, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as vireo:
            begun = False
            for line in vireo.stdout:
                text = line.decode(errors="replace").strip()
                if begun and text:
                    report.line(text)
                begun = begun or text == "begin"
        return report.end(vireo.returncode)


if __name__ == "__main__":
    sys.exit(main())
