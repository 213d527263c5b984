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


@dataclass
class Summary:
    """An engine's medians over its runs that succeeded."""
    engine: engines.Engine
    scale: int
    runs: list
    errors: list = field(default_factory=list)
    ns_per_op: dict = field(default_factory=dict)
    ratio: dict = field(default_factory=dict)  # to the native time at the same scale
    clock: float = None  # time of all workloads by the guest's clock / by the host's - 1
    system: dict = field(default_factory=dict)

    @property
    def gmean(self):
        """Geometric mean of the ratios."""
        return math.exp(statistics.fmean(map(math.log, self.ratio.values()))) if self.ratio else None


def _median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def _own_bytes(run):
    return run.peak_bytes - run.guest_bytes if run.peak_bytes and run.guest_bytes else None


def _around_s(run):
    return run.total_s - run.workloads_s if run.total_s and run.workloads_s else None


def _medians(runs, name, key):
    return _median(getattr(run.results[name], key) for run in runs if name in run.results)


def wrong_checksums(run, reference):
    """Workloads that computed something else than natively; reference: {name: checksum} at this scale."""
    return [name for name, result in run.results.items() if name in reference and result.checksum != reference[name]]


def summarize(engine, scale, runs, native_runs, names):
    """native_runs: those at the same scale."""
    summary = Summary(engine, scale, runs)
    reference = {name: result.checksum for run in native_runs[:1] for name, result in run.results.items()}
    for run in runs:
        wrong = wrong_checksums(run, reference)
        if wrong:
            run.error = "; ".join(filter(None, [run.error, f"WRONG RESULT of {', '.join(wrong)}"]))
        if run.error:
            summary.errors.append(run.error)
    good = [run for run in runs if not run.error]
    own_ns, host_ns = 0, 0
    for name in names:
        ns = _medians(good, name, "ns_per_op")
        base = _medians(native_runs, name, "ns_per_op")
        if ns is None:
            continue
        summary.ns_per_op[name] = ns
        iterations = _medians(good, name, "iterations")
        own_ns += iterations * _medians(good, name, "own_ns_per_op")
        host_ns += iterations * ns
        if base:
            summary.ratio[name] = ns / base
    summary.clock = own_ns / host_ns - 1 if host_ns else None
    summary.system = {
        "boot_s": _median(run.boot_s for run in good),
        "total_s": _median(run.total_s for run in good),
        "around_s": _median(_around_s(run) for run in good),
        "peak_bytes": _median(run.peak_bytes for run in good),
        "guest_bytes": _median(run.guest_bytes for run in good),
        "own_bytes": _median(_own_bytes(run) for run in good),
        "instructions_per_s": _median(run.instructions_per_s for run in good),
    }
    return summary


def duration(ns):
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def _grid(rows):
    """Lines of a table: the first two columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
             for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _cell(value, text):
    return "-" if value is None else text(value)


def _workload_table(native, guests, units):
    rows = [["workload", "native"]]
    for guest in guests:
        rows[0] += [guest.engine.title, "x native"]
    for name in units:
        row = [name, _cell(native.ns_per_op.get(name), duration)]
        for guest in guests:
            row += [_cell(guest.ns_per_op.get(name), duration), _cell(guest.ratio.get(name), "{:.2f}".format)]
        rows.append(row)
    rows.append(["geometric mean", ""])
    for guest in guests:
        rows[-1] += ["", _cell(guest.gmean, "{:.2f}".format)]
    return _grid(rows)


SYSTEM_ROWS = [
    ("boot to init, s", "boot_s", "{:.2f}".format),
    ("boot and power-off, s", "around_s", "{:.2f}".format),
    ("  with workloads, s", "total_s", "{:.2f}".format),
    ("peak memory, MiB", "peak_bytes", lambda value: f"{value / MIB:.0f}"),
    ("  guest's pages", "guest_bytes", lambda value: f"{value / MIB:.0f}"),
    ("  the VMM's own", "own_bytes", lambda value: f"{value / MIB:.1f}"),
    ("M guest instructions/s", "instructions_per_s", lambda value: f"{value / 1e6:.0f}"),
]


def _system_table(guests):
    rows = [["", *(guest.engine.title for guest in guests)]]
    for label, key, text in SYSTEM_ROWS:
        rows.append([label, *(_cell(guest.system[key], text) for guest in guests)])
    rows.append(["guest's clock, %", *(_cell(guest.clock, lambda value: f"{value * 100:+.1f}") for guest in guests)])
    return _grid(rows)


def remarks(summaries, missing):
    """What went wrong, a line each."""
    lines = [f"MISSING  {engine.title}: {why}" for engine, why in missing]
    for summary in summaries:
        for error in dict.fromkeys(summary.errors):
            lines.append(f"FAILED   {summary.engine.title}, {summary.errors.count(error)} of {len(summary.runs)} runs: {error}")
        if summary.clock is not None and abs(summary.clock) > CLOCK_TOLERANCE:
            lines.append(f"CLOCK    {summary.engine.title}: the guest's clock is {summary.clock * 100:+.1f} % off the host's")
    return lines


def text(summaries, missing, units, rounds):
    """The table for people. The first summary is the native one."""
    native, guests = summaries[0], summaries[1:]
    lines = _workload_table(native, guests, units)
    lines += ["", f"Time per operation, median of {rounds} run{'s' * (rounds != 1)}; ratios at equal iterations"
              f" ({', '.join(f'{s.engine.title}: 1/{s.scale}' for s in summaries)})."]
    if guests:
        lines += ["", *_system_table(guests)]
    problems = remarks(summaries, missing)
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


def as_json(summaries, missing, units, where, commands):
    """Everything that was measured, each run included."""
    report = {"version": 1, "host": where, "workloads": units, "engines": {}}
    for summary in summaries:
        report["engines"][summary.engine.name] = {
            "title": summary.engine.title, "scale": summary.scale, "command": commands.get(summary.engine.name),
            "median": {"ns_per_op": summary.ns_per_op, "ratio_to_native": summary.ratio, "gmean": summary.gmean,
                       "clock_error": summary.clock, **summary.system},
            "errors": summary.errors, "runs": [asdict(run) for run in summary.runs],
        }
    for engine, why in missing:
        report["engines"][engine.name] = {"title": engine.title, "missing": why}
    return json.dumps(report, indent=1) + "\n"
