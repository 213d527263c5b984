"""
Code that changes while it runs (smc/), in a guest, after it has passed on the host: which shows that a CPU keeps what the cases ask for.

usage: smc_test.py VIREO SMC [CLASS[.TEST]...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import re
import subprocess
import sys
from pathlib import Path

import guest
import harness

SMC = Path(sys.argv.pop(2)).resolve()


def results(lines):
    """{case: whether it passed} of lines of TAP, which must be complete."""
    cases = {}
    for line in lines:
        match = re.match(r"(not )?ok (\d+) - (\w+)", line)
        if match and int(match[2]) == len(cases) + 1:
            cases[match[3]] = not match[1]
    assert f"1..{len(cases)}" in lines, "\n".join(lines)
    return cases


def native(*args):
    """The cases on the host: (exit status, results)."""
    result = subprocess.run([SMC, *args], stdout=subprocess.PIPE, text=True, check=False, timeout=harness.PATIENCE * 10)
    return result.returncode, results(result.stdout.splitlines())


class Host(harness.Case):
    """No guest."""

    def test_passes(self):
        """A CPU passes every case."""
        status, cases = native()
        self.assertEqual((status, [name for name, passed in cases.items() if not passed]), (0, []))

    def test_notices(self):
        """Every case notices code that is out of date."""
        status, cases = native("--stale", "7")
        self.assertEqual((status, [name for name, passed in cases.items() if passed]), (1, []))


class Guest(harness.Case):
    """The same cases in a guest."""

    def check(self, cpus, rounds):
        """All pass, and the kernel has nothing to complain about."""
        _, cases = native("--rounds", "100")
        script = f"/test/smc --rounds {rounds}; {guest.COMPLAINTS} && exit 1; exit 0"
        lines = guest.run(self, "/test/run", {"test/smc": SMC.read_bytes(), "test/run": b"#!/bin/busybox sh\n" + script.encode()},
                          cpus=cpus)
        self.assertEqual(results(lines), dict.fromkeys(cases, True), "\n".join(lines))

    def test_quick(self):
        """A few rounds on two vCPUs."""
        self.check(2, 4000)

    def test_one_cpu(self):
        """Both threads on one vCPU."""
        self.check(1, 20000)

    def test_two_cpus(self):
        """A vCPU for each thread."""
        self.check(2, 100000)


if __name__ == "__main__":
    harness.main()
