"""From runs to medians, and those to text and JSON."""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field

from . import engines
from .guest import ROOT

MIB = 1 << 20
CLOCK_TOLERANCE = 0.05  # a guest's clock may stray this far from the host's before the table says so
CLOCK_SECONDS = 1  # shorter workloads say nothing about it: the lines take a millisecond to come through


@dataclass
class Summary:
    """An engine's medians. Workloads that a failed run completed count, its time and memory do not, nor do wrong results."""
    engine: engines.Engine
    scale: int
    runs: list = field(default_factory=list)
    missing: str = None  # why the engine could not be run at all
    errors: list = field(default_factory=list)  # one for each failed run
    wrong: set = field(default_factory=set)  # workloads that ever computed something else than natively
    ns_per_op: dict = field(default_factory=dict)
    ratio: dict = field(default_factory=dict)  # to the native time at the same scale
    clock: float = None  # time of all workloads by the guest's clock / by the host's - 1
    system: dict = field(default_factory=dict)  # key of SYSTEM_ROWS: median

    @property
    def gmean(self):
        """Geometric mean of the ratios."""
        return math.exp(statistics.fmean(map(math.log, self.ratio.values()))) if self.ratio else None

    @property
    def failed(self):
        """Whether anything went wrong."""
        return bool(self.missing or self.errors or self.wrong)

    def absent(self, name):
        """Why there is no figure for a workload, in a word."""
        if self.missing:
            return "missing"
        return "WRONG" if name in self.wrong else "failed"


def _difference(run, whole, part):
    whole, part = getattr(run, whole), getattr(run, part)
    return None if whole is None or part is None else whole - part


SYSTEM_ROWS = [  # (key, label, how a run has it, how it is shown)
    ("boot_s", "boot to init, s", lambda run: run.boot_s, "{:.2f}".format),
    ("around_s", "boot and power-off, s", lambda run: _difference(run, "total_s", "workloads_s"), "{:.2f}".format),
    ("total_s", "  with workloads, s", lambda run: run.total_s, "{:.2f}".format),
    ("peak_bytes", "peak memory, MiB", lambda run: run.peak_bytes, lambda value: f"{value / MIB:.0f}"),
    ("guest_bytes", "  guest's pages", lambda run: run.guest_bytes, lambda value: f"{value / MIB:.0f}"),
    ("own_bytes", "  the VMM's own", lambda run: _difference(run, "peak_bytes", "guest_bytes"),
     lambda value: f"{value / MIB:.1f}"),
    ("instructions_per_s", "M guest instructions/s", lambda run: run.instructions_per_s,
     lambda value: f"{value / 1e6:.0f}"),
]


def _median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def _medians(runs, name, key):
    return _median(getattr(run.results[name], key) for run in runs if name in run.results)


def _check(summary, reference):
    """Collects the errors, and takes results away that differ from the reference, {name: checksum} at this scale."""
    for run in summary.runs:
        if run.error:
            summary.errors.append(run.error)
        for name, result in list(run.results.items()):
            if name in reference and result.checksum != reference[name]:
                summary.wrong.add(name)
                run.wrong[name] = run.results.pop(name)


def summarize(engine, scale, runs, native_runs, names):
    """native_runs: those at the same scale; the first of them says what is right."""
    summary = Summary(engine, scale, runs)
    _check(summary, {name: result.checksum for run in native_runs[:1] for name, result in run.results.items()})
    own_ns, host_ns = 0, 0
    for name in names:
        ns = _medians(runs, name, "ns_per_op")
        base = _medians(native_runs, name, "ns_per_op")
        if ns is None:
            continue
        summary.ns_per_op[name] = ns
        iterations = _medians(runs, name, "iterations")
        own_ns += iterations * _medians(runs, name, "own_ns_per_op")
        host_ns += iterations * ns
        if base:
            summary.ratio[name] = ns / base
    summary.clock = own_ns / host_ns - 1 if host_ns >= CLOCK_SECONDS * 1e9 else None
    whole = [run for run in runs if not run.error]
    summary.system = {key: _median(map(value, runs if key == "boot_s" else whole)) for key, _, value, _ in SYSTEM_ROWS}
    return summary


def duration(ns):
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def _grid(rows):
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
             for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _cell(value, text):
    return "-" if value is None else text(value)


def _workload_table(native, guests, names):
    rows = [["workload", "native"]]
    for guest in guests:
        rows[0] += [guest.engine.title, "x native"]
    for name in names:
        row = [name]
        for summary in (native, *guests):
            ns = summary.ns_per_op.get(name)
            row.append(summary.absent(name) if ns is None else duration(ns))
            if summary is not native:
                row.append(_cell(summary.ratio.get(name), "{:.2f}".format))
        rows.append(row)
    rows.append(["geometric mean", ""])
    for guest in guests:
        rows[-1] += ["", _cell(guest.gmean, "{:.2f}".format)]
    return _grid(rows)


def _system_table(guests):
    rows = [["", *(guest.engine.title for guest in guests)]]
    for key, label, _, text in SYSTEM_ROWS:
        rows.append([label, *(_cell(guest.system.get(key), text) for guest in guests)])
    rows.append(["guest's clock, %", *(_cell(guest.clock, lambda value: f"{value * 100:+.1f}") for guest in guests)])
    return _grid(rows)


def _remarks(summaries):
    """What went wrong, a line each."""
    for summary in summaries:
        title = summary.engine.title
        if summary.missing:
            yield f"MISSING  {title}: {summary.missing}"
        for error in dict.fromkeys(summary.errors):
            yield f"FAILED   {title}, {summary.errors.count(error)} of {len(summary.runs)} runs: {error}"
        if summary.wrong:
            yield f"WRONG    {title}: checksums differ from the host's in {', '.join(sorted(summary.wrong))}"
        if summary.clock is not None and abs(summary.clock) > CLOCK_TOLERANCE:
            yield f"CLOCK    {title}: the guest's clock is {summary.clock * 100:+.1f} % off the host's"


def count(number, noun):
    """'1 run', '2 runs'."""
    return f"{number} {noun}{'s' * (number != 1)}"


def text(native, guests, names, rounds):
    """The table for people; native: a Summary for each scale."""
    scales = ", ".join(f"{guest.engine.title} 1/{guest.scale}" for guest in guests)
    lines = [*_workload_table(native[0], guests, names), "",
             f"Time per operation, median of {count(rounds, 'run')}; native: 1/{native[0].scale} of the iterations. Ratios are to "
             "native runs of"]
    lines.append(f"equal iterations: {scales or 'none'}.")
    if guests:
        lines += ["", *_system_table(guests)]
    problems = list(_remarks([*native, *guests]))
    if problems:
        lines += ["", *problems]
    return "\n".join(lines) + "\n"


def host():
    """Where this was measured."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
        for line in cpuinfo:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], check=False, capture_output=True,
                            text=True).stdout.strip()
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0],
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit or None}


def as_json(native, guests, units, where, commands):
    """Everything that was measured, each run included; native: a Summary for each scale."""
    measured = []
    for summary in (*native, *guests):
        measured.append({
            "engine": summary.engine.name, "title": summary.engine.title, "scale": summary.scale,
            "command": commands.get(summary.engine.name), "missing": summary.missing, "errors": summary.errors,
            "wrong": sorted(summary.wrong),
            "median": {"ns_per_op": summary.ns_per_op, "ratio_to_native": summary.ratio, "gmean": summary.gmean,
                       "clock_error": summary.clock, **summary.system},
            "runs": [asdict(run) for run in summary.runs],
        })
    return json.dumps({"version": 1, "host": where, "workloads": units, "measured": measured}, indent=1) + "\n"
