"""
Programs that generate code, from Debian's packages, in a guest: their answers are those of a real CPU. What they compute is in
programs/; tools/guest-programs fetches them. Answers are from a run on the host, and the same without a compiler (luajit -joff,
node --jitless, java -Xint), as far as they are not known otherwise (primes, queens, wasm's Fibonacci number).

usage: program_test.py VIREO [CLASS[.TEST]...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import guest
import harness

PROGRAMS = harness.ROOT / "tests/guest/programs"
RUN = """#!/bin/busybox sh
# As many at once as there are CPUs.
cd /test
cpus=$(nproc)
echo "cpus $cpus"
for i in $(seq $cpus); do
    { COMMAND >out.$i 2>&1; echo "status $?" >>out.$i; } &
done
wait
for i in $(seq $cpus); do sed "s/^/$i: /" out.$i; done
COMPLAINTS
true
"""


class Programs:
    """What each of them goes through."""

    maxDiff = None
    name = source = command = answers = memory = None

    def check(self, cpus):
        """Runs a copy of the program for each vCPU at once; each must print the answers, and the kernel nothing."""
        script = RUN.replace("COMMAND", self.command).replace("COMPLAINTS", guest.COMPLAINTS)
        files = {"test/run": script.encode(), f"test/{self.source}": (PROGRAMS / self.source).read_bytes()}
        lines = guest.run(self, "/test/run", files, archives=[guest.programs(self.name)], cpus=cpus, memory=self.memory)
        expected = [f"cpus {cpus}"]
        for copy in range(1, cpus + 1):
            expected += [f"{copy}: {line}" for line in [*self.answers.strip().splitlines(), "status 0"]]
        self.assertEqual(lines, expected)

    def test_one_cpu(self):
        """Alone."""
        self.check(1)

    def test_two_cpus(self):
        """Two of them beside each other."""
        self.check(2)


class LuaJIT(Programs, harness.Case):
    """A tracing compiler, which throws all its code away now and then, and C that calls generated code."""

    name, source, command, memory = "luajit", "compute.lua", "luajit compute.lua", "512M"
    answers = """
primes 348513
crc32 2493d5a6
queens 724
trees 147447
mandelbrot 2196322
generated 11898201
callbacks 409553334
churn 96600105
compiler on
"""


class Node(Programs, harness.Case):
    """V8: compilers for JavaScript, regular expressions and WebAssembly, deoptimization, worker threads."""

    name, source, command, memory = "node", "compute.js", "node compute.js", "1G"
    answers = """
primes 348513
pi fe729a69af204b35956209b73fd7eb5a7236cc6cb7ba45f8a4371870fd4a0f8f
shapes 280199598
generated 23857496
wasm 317811
patterns 3334
trees 557039
threads 60000 120000 25997 25997 25997
"""


class Java(Programs, harness.Case):
    """HotSpot: javac, two compilers, a concurrent collector, threads, checks made from SIGSEGV and SIGFPE."""

    name, source, memory = "java", "Compute.java", "2G"
    command = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java -Xmx400m Compute.java"
    answers = """
primes 348513
hashes b6552d83 0a5d49e5dd9cc7aa647824dc6f29fbbbffe477e210f5668eed4420c51c381521
checks 7529 4000 23294 5379 20 67743624
generated 4276843587678239467
trees 2031585
threads 79996 80000 824 9048 252002936
text 1567051 562558062 143429 0.8595235062417035
"""


if __name__ == "__main__":
    harness.main()
