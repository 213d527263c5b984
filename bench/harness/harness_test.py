"""Tests of the benchmark's own parts; python3 -m unittest discover -s bench -p '*_test.py' -t bench"""

import argparse
import importlib.machinery
import importlib.util
import json
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

from . import chart, engines, guest, latency, measure, report, server, start, targets

CATALOGUE = [guest.Workload("integer", "sort", "int"), guest.Workload("integer", "hash", "key"),
             guest.Workload(targets.PARALLEL, targets.PARALLEL, "piece")]


def run_of(checksum, ns, error=None, name="sort"):
    """A Run of one workload."""
    run = measure.Run(32, error=error)
    run.results[name] = measure.Result(100, ns, ns, checksum)
    return run


def quiet(_):
    """No progress."""


class StartTest(unittest.TestCase):
    """What starting costs, of a process that plays a monitor."""

    def test_small(self):
        """CPU time and memory are noted when the line has come."""
        row = start.Row("monitor", [])
        start.small(row, ["sh", "-c", "echo first; exec sleep 1000"])
        self.assertEqual((len(row.cpu_ms), len(row.own_mib)), (1, 1))
        self.assertGreater(row.own_mib[0], 0)
        with self.assertRaisesRegex(guest.Failure, "ended before its guest began: no kernel"):
            start.small(row, ["sh", "-c", "echo no kernel >&2"])

    def test_linux(self):
        """The same when Linux is at its shell."""
        row = start.Row("monitor", [])
        start.linux(row, ["sh", "-c", "echo poweroff ends it; exec sleep 1000"])
        self.assertEqual((len(row.init_ms), row.init_exits), (1, []))

    def test_table(self):
        """Figures, aims of vireo's own alone, and what is skipped."""
        rows = [start.Row("vireo bt", [], None, [4, 5, 6], [2.5]), start.Row("vireo kvm", [], None, [9], [6]),
                start.Row("QEMU microvm, TCG", [], None, [50], [25]), start.Row("kvmtool", [], "it is not installed")]
        text = "\n".join(start.table(rows, "no /dev/kvm", 3))
        self.assertRegex(text, r"vireo bt +5\.00 +10\.0 +yes +2\.50 +10\.0 +yes")
        self.assertRegex(text, r"vireo kvm +9\.00 +5\.6 +no +6\.00 +4\.2 +no")
        self.assertRegex(text, r"QEMU microvm, TCG +50\.00 +1\.0 +- ")
        self.assertIn("kvmtool: skipped: it is not installed", text)
        self.assertIn("Linux to init on KVM: skipped: no /dev/kvm", text)
        self.assertEqual(json.loads(json.dumps(start.as_json(rows, None)))["rows"][0]["cpu_ms"], [4, 5, 6])

    def test_kernel(self):
        """An ELF64 file whose note names its entry."""
        image = start.kernel()
        self.assertEqual(image[:5], b"\x7fELF\x02")
        entry = int.from_bytes(image[24:32], "little")
        self.assertIn(b"Xen\0" + entry.to_bytes(8, "little"), image)
        self.assertEqual(image[entry - start.LOAD:][:4], bytes.fromhex("66baf803"))


class MeasureTest(unittest.TestCase):
    """Runs of processes that play a guest."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.stats = Path(self.dir.name) / "stats.json"

    def guest(self, script, timeout=20):
        """Lets a shell script play the guest."""
        return measure.guest(["sh", "-c", script], timeout, 32, ["sort"], self.stats, quiet)

    RESULT = "echo 'bench: result sort iterations 1000 ns_per_op 2.5 checksum 00000000000000ab'"

    def test_complete_run(self):
        """Also with escape sequences before a line, as firmware prints them, and carriage returns after it."""
        run = self.guest(f"printf '\\033[2Jbench: init\\r\\n'; echo bench: begin sort; {self.RESULT}; echo bench: done")
        self.assertIsNone(run.error)
        self.assertEqual(run.results["sort"].checksum, "00000000000000ab")
        self.assertEqual(run.results["sort"].own_ns_per_op, 2.5)
        self.assertNotEqual(run.results["sort"].ns_per_op, 2.5)  # by the host's clock, not the guest's word
        self.assertLessEqual(run.boot_s + run.workloads_s, run.total_s)
        self.assertGreater(run.peak_bytes, 0)

    def test_failures_are_named(self):
        """Whatever goes wrong, the run says so and keeps what it has."""
        self.assertIn("exit status 3: no such thing", self.guest("printf 'no such thing\\nrip 0\\n' >&2; exit 3").error)
        self.assertIn("ended before", self.guest("echo bench: init").error)
        self.assertIn("no result of sort", self.guest("echo bench: init; echo bench: done").error)
        self.assertIn("sort status 1", self.guest("echo bench: init; echo bench: failed sort status 1; echo bench: done").error)
        late = self.guest(f"echo bench: init; echo bench: begin sort; {self.RESULT}; exec sleep 1000", timeout=0.5)
        self.assertIn("not done after", late.error)
        self.assertIn("sort", late.results)

    def test_time_out_with_output_closed(self):
        """A process that closes its console and stays is ended too."""
        self.assertIn("not done after", self.guest("exec >&- 2>&-; exec sleep 1000", timeout=0.5).error)

    def test_stats(self):
        """vireo's own counters."""
        self.stats.write_text("{")
        run = measure.Run(1)
        measure.read_stats(run, self.stats)
        self.assertIn("stats.json", run.error)
        self.stats.write_text('{"instructions": 3000, "time_ns": {"guest": 1500, "device": 1, "halted": 7}}')
        run = measure.Run(1)
        measure.read_stats(run, self.stats)
        self.assertIsNone(run.error)
        self.assertEqual(run.instructions_per_s, 2e9)
        self.stats.write_text('{"instructions": 0, "time_ns": {"guest": 1500, "device": 1, "halted": 7}}')
        run = measure.Run(1)
        measure.read_stats(run, self.stats)
        self.assertEqual((run.error, run.instructions_per_s), (None, None))

    SMAPS = """\
55d0c0000000-55d0c0010000 r-xp 00002000 08:01 77    /usr/bin/vireo
Size:                 64 kB
Rss:                  40 kB
Pss:                  20 kB
Pss_Dirty:            16 kB
7f0000000000-7f0020000000 rw-s 00000000 00:01 5     {}
Size:             524288 kB
Pss:                8192 kB
7f0030000000-7f0030001000 rw-s 00000000 00:01 5     {}
Size:                  4 kB
Pss:                   4 kB
7f0040000000-7f0040010000 r-xs 00000000 00:01 6     /memfd:code-cache (deleted)
Size:                 64 kB
Pss:                  30 kB
7f0050000000-7f0050010000 rw-s 00000000 00:01 6     /memfd:code-cache (deleted)
Size:                 64 kB
Pss:                  30 kB
"""

    def test_memory(self):
        """Guest RAM by name wherever it is mapped, else by size; all else is the VMM's own, proportional shares throughout."""
        def of(*names):
            return measure.memory_of(self.SMAPS.format(*names).splitlines(), 512 << 20)
        self.assertEqual(of("/memfd:guest-ram (deleted)", "/memfd:guest-ram (deleted)"), (8196 << 10, 80 << 10))
        self.assertEqual(of("", ""), (8192 << 10, 84 << 10))

    def test_memory_is_noted(self):
        """When the last result came, of a process that does have memory."""
        run = self.guest(f"echo bench: init; echo bench: begin sort; {self.RESULT}; sleep 0.2; echo bench: done")
        self.assertEqual(run.guest_bytes, 0)
        self.assertGreater(run.own_bytes, 4096)


class EnginesTest(unittest.TestCase):
    """Which engines there are."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.vireo = Path(directory.name) / "vireo"

    def answer(self, line):
        """Makes a vireo that says this to everything."""
        self.vireo.write_text(f"#!/bin/sh\necho \"{line}\" >&2\nexit 2\n")
        self.vireo.chmod(0o755)

    def bench(self, names, any_engine):
        """bench/run's own choice."""
        loader = importlib.machinery.SourceFileLoader("bench_run", str(guest.ROOT / "bench/run"))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_run", loader))
        loader.exec_module(module)
        args = argparse.Namespace(quick=True, engines=names, any_engine=any_engine, vireo=self.vireo, out=Path("."))
        return module.Bench(args, ["sort"], None, None)

    def test_unknown(self):
        """An engine this vireo was built without, and one that it has."""
        engine = engines.VIREO[0]
        self.answer(f"vireo: --engine '{engine.name}': accepted is x|y")
        self.assertIn("accepted is x|y", engines.unknown(engine, self.vireo))
        self.answer("vireo: kernel /dev/null/none: Not a directory")
        self.assertIsNone(engines.unknown(engine, self.vireo))
        self.assertIsNone(engines.unknown(engines.QEMU, self.vireo))

    def test_skipped_unless_asked_for(self):
        """By default a line; by name a failure."""
        engine = engines.VIREO[0]
        self.answer(f"vireo: --engine '{engine.name}': accepted is x|y")
        bench = self.bench([engine.name], True)
        self.assertEqual((bench.wanted, len(bench.notes)), ([], 1))
        self.assertIn("accepted is x|y", bench.notes[0])
        bench = self.bench([engine.name], False)
        self.assertEqual((bench.guests, bench.notes), ([], []))
        self.assertTrue(all(summary.failed for summary in bench.guest_summaries()))
        self.vireo.unlink()
        self.assertEqual(len(self.bench([engine.name], True).wanted), 1)  # not built is no choice

    def test_commands(self):
        """Both kinds of engine are told of the second CPU."""
        system = engines.Guest(Path("k"), Path("i"))
        for engine, option in ((engines.QEMU, "-smp"), (engines.VIREO[0], "--cpus")):
            for cpus in (1, 2):
                line = engines.command(engine, system, "a", self.vireo, Path("s"), cpus)
                self.assertEqual(line[line.index(option) + 1], str(cpus))


class GuestTest(unittest.TestCase):
    """What goes into the guest."""

    def test_newc_entry(self):
        """Header of 110 bytes, name and data each end on 4 bytes."""
        entry = guest._entry(7, "bin/a", 0o100755, b"12345")
        self.assertEqual(entry[:14], b"07070100000007")
        self.assertEqual(entry[14:22], b"000081ED")
        self.assertEqual(entry[54:62], b"00000005")
        self.assertEqual(entry[94:102], b"00000006")
        self.assertEqual(entry[110:116], b"bin/a\0")
        self.assertEqual(entry[116:121], b"12345")
        self.assertEqual(len(entry) % 4, 0)

    def test_archive(self):
        """A file comes after each directory on its way."""
        archive = guest._archive({Path("/lib/a/b.so"): (0o755, b"x"), Path("/c"): (0o644, b"y")})
        order = [archive.index(name + b"\0") for name in (b"lib", b"lib/a", b"lib/a/b.so", b"c", b"TRAILER!!!")]
        self.assertEqual(order, sorted(order))

    def test_workloads(self):
        """All compile, run, and compute the same twice, on two CPUs too; another number of iterations gives another checksum."""
        with tempfile.TemporaryDirectory() as out:
            programs = guest.build_programs(Path(out))
            names = [workload.name for workload in guest.workloads(programs)]
            groups = {workload.group for workload in guest.workloads(programs)}
            libraries = [path.name for path in guest.libraries(programs.dynamic)]
            first, second, other = (measure.native(programs.workloads, names, scale, quiet, cpus)
                                    for scale, cpus in ((500, 1), (500, 2), (100, 1)))
        self.assertEqual(groups, set(targets.GROUPS))
        self.assertIn(targets.PARALLEL, names)
        self.assertIn("libc.so.6", libraries)
        self.assertIn("ld-linux-x86-64.so.2", libraries)
        for name in names:
            self.assertEqual(first.results[name].checksum, second.results[name].checksum, name)
            self.assertNotEqual(first.results[name].checksum, other.results[name].checksum, name)


class LatencyTest(unittest.TestCase):
    """Waiting guests, played by shell scripts again."""

    READY = "echo 'Linux with busybox, in vireo. poweroff ends it; so does Ctrl-A x.'"
    RESULTS = "printf 'timer: result loop ticks 2000 median 20000 p99 1500000 worst 9000000\\r\\ntimer: result halt ticks 2000 median 1 " \
              "p99 2 worst 3\\r\\n'"

    @staticmethod
    def measure(script, name, seconds=0.3, timeout=20):
        """One of the two by a script."""
        return latency.measure([name], {name: ["sh", "-c", script]}, timeout, seconds, quiet, settle=0.1)

    def test_idle(self):
        """One that sleeps costs less than one that does not."""
        asleep = self.measure(f"{self.READY}; exec sleep 1000", latency.IDLE)
        busy = self.measure(f"{self.READY}; while :; do :; done", latency.IDLE)
        self.assertEqual((asleep.error, busy.error), (None, None))
        self.assertLess(asleep.idle_percent, busy.idle_percent)

    def test_timers(self):
        """Every line counts, and what follows the last does not."""
        found = self.measure(f"{self.RESULTS}; echo timer: done; exec sleep 1000", latency.TIMERS)
        self.assertIsNone(found.error)
        self.assertEqual(found.timers, {"loop": (20000, 1500000, 9000000), "halt": (1, 2, 3)})

    def test_failures_are_named(self):
        """Without a word of what was expected."""
        self.assertIn("timer: ended before the timers did: no engine", self.measure("echo no engine >&2", latency.TIMERS).error)
        self.assertIn("idle: ended before it was idle", self.measure("echo bye", latency.IDLE).error)
        self.assertIn("timer: not done after", self.measure(f"{self.RESULTS}; exec sleep 1000", latency.TIMERS, timeout=0.5).error)

    def test_figures(self):
        """In the table, and held against the aims: 3 % of a CPU, and 1 ms for all but one of a hundred."""
        summary = report.Summary(engines.VIREO[0], 8)
        latency.add(summary, latency.Latency(2.5, {"loop": (20000, 1500000, 9000000)}))
        table = report.text([summary], [summary], [], CATALOGUE, 1)
        self.assertRegex(table, r"idle guest, % of a CPU +2\.50\n")
        self.assertRegex(table, r"timer late in a loop, us +20 / 1500 / 9000\n")
        self.assertRegex(table, r"idle guest, one CPU .* 2\.50 % +yes")
        self.assertRegex(table, r"99 % of timers.* 1\.50 ms +no")
        latency.add(summary, latency.Latency(error="idle: not done after 5 s"))
        self.assertTrue(summary.failed)

    def test_guest(self):
        """It compiles, and loaders find its header where they look."""
        with tempfile.TemporaryDirectory() as out:
            image = latency.build_timer(Path(out)).read_bytes()
        self.assertEqual(image[:5], b"\x7fELF\x01")
        at = image.find(b"\x02\xb0\xad\x1b")
        self.assertTrue(0 < at < 8192 and at % 4 == 0)


class ServerTest(unittest.TestCase):
    """A whole Debian, of which no more is played here than its prompt."""

    @staticmethod
    def summary(engine, *sessions):
        """An engine's, after these sessions."""
        summary = report.Summary(engine, 4)
        server.add(summary, [server.Session(values) for values in sessions])
        return summary

    def test_prompt(self):
        """It is found without a line's end, and nobody waits for what does not come."""
        with measure.Console(["sh", "-c", "printf 'noise\\r\\ndebian login: '; exec sleep 1000"], 20) as console:
            self.assertLess(console.until(server.LOGIN), 20)
        with measure.Console(["sh", "-c", "echo panic >&2"], 20) as console:
            self.assertRaisesRegex(EOFError, "ended: panic", console.until, server.LOGIN)
        with measure.Console(["sleep", "1000"], 0.2) as console:
            self.assertRaises(TimeoutError, console.until, server.LOGIN)

    def test_figures(self):
        """Medians, what is better as more and what as less, and the aims."""
        mine = self.summary(engines.VIREO[0], {"login_s": 5, "read_bytes": 3 << 20, "server_idle_percent": 1.5},
                            {"login_s": 4, "read_bytes": 5 << 20}, {"login_s": 6, "read_bytes": 4 << 20})
        peer = self.summary(engines.QEMU, {"login_s": 15, "read_bytes": 2 << 20})
        table = report.text([mine], [mine, peer], [], CATALOGUE, 1)
        self.assertRegex(table, r"boot to the login prompt, s +5 +3\.00 +15\n")
        self.assertRegex(table, r"reads of 128 KiB in order, MiB/s +4 +2\.00 +2\n")
        self.assertRegex(table, r"Debian to its login prompt.* 3\.00x +yes")
        self.assertRegex(table, r"disk and network, slowest row.* 2\.00x \(read\) +-")
        self.assertRegex(table, r"Debian, idle .* 1\.50 % +yes")
        self.assertNotIn("switch:", table)
        peer = self.summary(engines.QEMU, {"login_s": 5, "read_bytes": 4 << 20})
        self.assertRegex(report.text([mine], [mine, peer], [], CATALOGUE, 1), r"slowest row.* 1\.00x \(read\) +no")

    def test_failure(self):
        """It is told, and what was measured before it counts."""
        summary = report.Summary(engines.QEMU, 4)
        server.add(summary, [server.Session({"login_s": 5}, "Debian: no ssh"), server.Session({"login_s": 7})])
        self.assertTrue(summary.failed)
        self.assertEqual(summary.server, {"login_s": 6})
        self.assertIn("FAILED   QEMU TCG, 1 of 2 runs: Debian: no ssh", report.text([summary], [summary], [], CATALOGUE, 1))


class ReportTest(unittest.TestCase):
    """Medians and what is made of them."""

    def setUp(self):
        self.native = [run_of("a", 2.0), run_of("a", 4.0), run_of("a", 3.0)]

    def summary(self, *runs, engine=engines.QEMU):
        """Of the runs."""
        return report.summarize(engine, 32, list(runs), self.native, ["sort"])

    def text(self, *summaries, notes=()):
        """The table of some engines."""
        native = report.summarize(engines.NATIVE, 32, self.native, self.native, ["sort"])
        return report.text([native], list(summaries), ["sort"], CATALOGUE, 3, notes)

    def test_median_ratio(self):
        """Median over median."""
        summary = self.summary(run_of("a", 30.0), run_of("a", 6.0), run_of("a", 7.5))
        self.assertEqual(summary.ns_per_op, {"sort": 7.5})
        self.assertEqual(summary.ratio, {"sort": 2.5})
        self.assertAlmostEqual(summary.gmean, 2.5)
        self.assertFalse(summary.failed)

    def test_wrong_result_is_no_result(self):
        """However fast it was."""
        summary = self.summary(run_of("b", 1.0))
        self.assertTrue(summary.failed)
        self.assertEqual(summary.ratio, {})
        self.assertIn("WRONG", self.text(summary))

    def test_failure_and_absence_show(self):
        """In the table, in JSON and in the exit status."""
        failed = self.summary(measure.Run(32, error="went away"))
        self.assertTrue(failed.failed)
        self.assertIn("1 of 1 runs: went away", self.text(failed))
        half = run_of("a", 6.0, error="went away")
        half.boot_s, half.total_s = 1.0, 2.0
        half = self.summary(half)
        self.assertEqual((half.ratio, half.system["boot_s"], half.system["total_s"]), ({"sort": 2.0}, 1.0, None))
        missing = report.Summary(engines.QEMU, 32, missing="not here")
        self.assertTrue(missing.failed)
        self.assertIn("MISSING  QEMU TCG: not here", self.text(missing))
        data = json.loads(report.as_json([], [failed, missing], CATALOGUE, {}, {}))
        self.assertEqual([entry["errors"] for entry in data["measured"]], [["went away"], []])

    def test_against_the_peer(self):
        """Times as fast as TCG, a slower row marked, what was left out said."""
        slow = self.summary(run_of("a", 12.0), engine=engines.VIREO[0])
        fast = self.summary(run_of("a", 2.0), engine=engines.VIREO[0])
        peer = self.summary(run_of("a", 6.0))
        self.assertEqual((slow.faster(peer), fast.faster(peer)), ({"sort": 0.5}, {"sort": 3.0}))
        self.assertIn("0.50!", self.text(slow, peer))
        self.assertNotIn("3.00!", self.text(fast, peer))
        self.assertIn("3.00", self.text(fast, peer))
        self.assertNotIn("vs TCG", self.text(fast))
        self.assertIn("SKIPPED  vireo x: no such", self.text(peer, notes=["vireo x: no such"]))

    def test_two_cpus(self):
        """The speed-up is of medians; a wrong result on two CPUs is wrong. The row counts in no mean."""
        name = targets.PARALLEL
        one, two = [run_of("a", 8.0, name=name)], [run_of("a", 4.0, name=name), run_of("a", 5.0, name=name)]
        summary = report.summarize(engines.QEMU, 32, one, one, [name], two)
        self.assertAlmostEqual(summary.speedup, 8 / 4.5)
        self.assertIsNone(summary.gmean)
        self.assertFalse(summary.failed)
        summary = report.summarize(engines.QEMU, 32, one, one, [name], [run_of("b", 4.0, name=name)])
        self.assertEqual((summary.speedup, summary.wrong), (None, {name}))
        summary = report.summarize(engines.QEMU, 32, one, one, [name], [measure.Run(32, error="went away")])
        self.assertEqual(summary.errors, ["with two CPUs: went away"])

    def test_durations(self):
        """Three digits."""
        for ns, shown in ((0.5, "0.5 ns"), (12.345, "12.3 ns"), (1234, "1.23 us"), (56_789_000, "56.8 ms"), (2e9, "2 s")):
            self.assertEqual(report.duration(ns), shown)


class TargetsTest(unittest.TestCase):
    """What was asked for, and whether it came."""

    def readings(self, ratios, boot_s=1.0, own=1 << 20, two_cpus_ns=None):
        """{figure's first word: Reading} of an engine; the peer takes 4 times the native time of all, and 3 s to boot."""
        peer = report.Summary(engines.QEMU, 4, ratio={"sort": 4.0, "hash": 4.0}, system={"boot_s": 3.0})
        mine = report.Summary(engines.VIREO[0], 4, ratio=ratios, system={"boot_s": boot_s, "own_bytes": own},
                              ns_per_op={targets.PARALLEL: 10.0}, two_cpus_ns=two_cpus_ns)
        return {target.figure.split()[0]: target.read(mine, peer, CATALOGUE) for target in targets.TARGETS}

    def test_met(self):
        """All that there is to see."""
        readings = self.readings({"sort": 1.0, "hash": 2.0}, boot_s=1.5, two_cpus_ns=5.0)
        self.assertEqual((readings["boot"].text, readings["boot"].met), ("2.00x", True))
        self.assertAlmostEqual(readings["integer"].value, 8**0.5)
        self.assertEqual((readings["integer"].met, readings["slowest"].met, readings["slowest"].text), (True, True, "2.00x (hash)"))
        self.assertEqual((readings["two"].text, readings["two"].met), ("2.00x", True))
        self.assertEqual((readings["memory"].text, readings["memory"].met), ("1.0 MiB", True))

    def test_not_met(self):
        """Each in its turn."""
        readings = self.readings({"sort": 5.0, "hash": 4.0}, boot_s=1.6, own=65 << 20, two_cpus_ns=6.0)
        self.assertEqual([readings[name].met for name in ("boot", "integer", "slowest", "two", "memory")], [False] * 5)
        self.assertEqual(readings["slowest"].text, "0.80x (sort)")

    def test_not_known(self):
        """Rows that were not run are neither met nor missed, unless one that was run is already too slow."""
        readings = self.readings({"sort": 1.0})
        self.assertEqual((readings["integer"].met, readings["integer"].text), (None, "4.00x (1 of its rows)"))
        self.assertEqual((readings["slowest"].met, readings["floating-point"].text, readings["two"].met), (None, "-", None))
        self.assertIs(self.readings({"sort": 5.0})["slowest"].met, False)
        alone = report.Summary(engines.VIREO[0], 4, ratio={"sort": 1.0})
        self.assertEqual({target.read(alone, None, CATALOGUE).met for target in targets.TARGETS}, {None})


class ChartTest(unittest.TestCase):
    """The drawing."""

    def test_axis(self):
        """Ends at round numbers, holds 1."""
        axis = chart.Axis([0.9, 70])
        self.assertEqual((axis.low, axis.high), (0.5, 100))
        self.assertEqual((chart.Axis([]).low, chart.Axis([]).high), (1, 2))
        self.assertEqual(axis.x(0.5), chart.LEFT)
        self.assertEqual(axis.x(100), chart.WIDTH - chart.RIGHT)

    def test_svg_is_well_formed(self):
        """Also with an engine that has no result."""
        native = [run_of("a", 2.0)]
        good = report.summarize(engines.QEMU, 32, [run_of("a", 30.0)], native, ["sort"])
        missing = report.Summary(engines.VIREO[0], 32, missing="not here")
        tree = xml.etree.ElementTree.fromstring(chart.svg([missing, good], ["sort"], "a < b & c"))
        words = [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("missing", words)
        self.assertIn("15", words)
        self.assertIn("a < b & c", words)

    def test_legend_fits(self):
        """All engines there are, side by side within the picture."""
        native = [run_of("a", 2.0)]
        every = [report.summarize(engine, 32, [run_of("a", 246.8)], native, ["sort"]) for engine in engines.ENGINES[1:]]
        tree = xml.etree.ElementTree.fromstring(chart.svg(every, ["sort"], ""))
        legend = [element for element in tree.iter("{http://www.w3.org/2000/svg}text") if "mean" in (element.text or "")]
        self.assertEqual(len(legend), len(every))
        self.assertLess(max(float(element.get("x")) + 7 * len(element.text) for element in legend), chart.WIDTH)


if __name__ == "__main__":
    unittest.main()
