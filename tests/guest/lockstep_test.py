"""
Debian's kernel on two engines in lockstep: the one under test leads, the reference engine follows, and they agree on every register after
every block and on all of RAM.

usage: lockstep_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, that engine leads.
"""

import os
import re
import subprocess

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "bt")


class Lockstep(harness.Case):
    """A boot each."""

    def boot(self, status, timeout, lockstep="interp"):
        """What vireo said at its end, and how many instructions were in step."""
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        result = self.run_vireo("run", "--engine", ENGINE, "--lockstep", lockstep, "--kernel", harness.GUEST / "vmlinux",
                                "--initrd", harness.GUEST / "initrd.img", "--no-reboot", "--append",
                                'console=ttyS0,115200 panic=-1 quiet vireo.script="ls -lR /proc/sys | sha256sum; poweroff"',
                                "--timeout", timeout, timeout=timeout + 60)
        said = result.stderr.decode(errors="replace")
        self.assertEqual(result.returncode, status, said + result.stdout.decode(errors="replace")[-2000:])
        match = re.search(r"lockstep: (\d+) instructions in (\d+) blocks, (\d+) events, RAM compared (\d+) times: no difference", said)
        self.assertIsNotNone(match, said)
        return [int(figure) for figure in match.groups()]

    def test_start(self):
        """As far as it comes in a while: through the decompressed kernel's first steps at least."""
        instructions, blocks, events, compared = self.boot(4, 15)
        self.assertGreater(instructions, 1000000)
        self.assertGreater(blocks, 100000)
        self.assertGreater(events, 0)
        self.assertGreater(compared, 0)

    def test_boot(self):
        """To the end, and a program in user mode."""
        instructions, _, events, compared = self.boot(0, 60 * harness.PATIENCE)
        self.assertGreater(instructions, 500000000)
        self.assertGreater(events, 10000)
        self.assertGreater(compared, 10)

    def test_from(self):
        """The second half, on translations that are warm."""
        instructions, *_ = self.boot(0, 60 * harness.PATIENCE, "interp,from=0.3,every=16")
        self.assertGreater(instructions, 0)


if __name__ == "__main__":
    harness.main()
