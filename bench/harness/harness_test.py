"""Tests of the benchmark's own parts; python3 -m unittest discover -s bench -p '*_test.py' -t bench"""

import json
import tempfile
import unittest
import xml.etree.ElementTree
from pathlib import Path

from . import chart, engines, guest, measure, report


def run_of(checksum, ns, error=None):
    """A Run of one workload, `sort`."""
    run = measure.Run(32, error=error)
    run.results["sort"] = measure.Result(100, ns, ns, checksum)
    return run


def quiet(_):
    """No progress."""


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

    def test_workloads(self):
        """All compile, run, and compute the same twice; another number of iterations gives another checksum."""
        with tempfile.TemporaryDirectory() as out:
            program = guest.build_workloads(Path(out))
            names = list(guest.workload_units(program))
            first, second, other = (measure.native(program, names, scale, quiet) for scale in (500, 500, 100))
        self.assertIn("pipe", names)
        for name in names:
            self.assertEqual(first.results[name].checksum, second.results[name].checksum, name)
            self.assertNotEqual(first.results[name].checksum, other.results[name].checksum, name)


class ReportTest(unittest.TestCase):
    """Medians and what is made of them."""

    def setUp(self):
        self.native = [run_of("a", 2.0), run_of("a", 4.0), run_of("a", 3.0)]

    def summary(self, *runs):
        """Of the runs, on QEMU."""
        return report.summarize(engines.QEMU, 32, list(runs), self.native, ["sort"])

    def text(self, summary):
        """The table of one engine."""
        native = report.summarize(engines.NATIVE, 32, self.native, self.native, ["sort"])
        return report.text([native], [summary], ["sort"], 3)

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
        data = json.loads(report.as_json([], [failed, missing], {"sort": "int"}, {}, {}))
        self.assertEqual([entry["errors"] for entry in data["measured"]], [["went away"], []])

    def test_durations(self):
        """Three digits."""
        for ns, shown in ((0.5, "0.5 ns"), (12.345, "12.3 ns"), (1234, "1.23 us"), (56_789_000, "56.8 ms"), (2e9, "2 s")):
            self.assertEqual(report.duration(ns), shown)


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


if __name__ == "__main__":
    unittest.main()
