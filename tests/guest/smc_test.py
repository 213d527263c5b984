"""
Code that changes while it runs (smc/), in a guest, after it has passed on the host: which shows that a CPU keeps what the cases ask for.

usage: smc_test.py VIREO SMC [CLASS[.TEST]...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import subprocess
import sys
from pathlib import Path

import guest
import harness

SMC = Path(sys.argv.pop(2)).resolve()


def native(*args):
    """The cases on the host: (exit status, {name: whether it passed})."""
    result = subprocess.run([SMC, *args], stdout=subprocess.PIPE, text=True, check=False, timeout=harness.PATIENCE * 10)
    return result.returncode, guest.cases(result.stdout.splitlines())


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
        """All pass there too."""
        _, cases = native("--rounds", "100")
        self.assertEqual(guest.run_cases(self, SMC, f"--rounds {rounds}", cpus), list(cases))

    def test_quick(self):
        """A few rounds on two vCPUs."""
        self.check(2, 4000)

    def test_one_cpu(self):
        """Both threads on one vCPU."""
        self.check(1, 20000)

    def test_two_cpus(self):
        """A vCPU for each thread."""
        self.check(2, 40000)


if __name__ == "__main__":
    harness.main()
