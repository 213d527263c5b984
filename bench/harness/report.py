"""From runs to medians, and those to text and JSON."""

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass, field

from . import engines, latency, server, targets
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
    two_cpus: list = field(default_factory=list)  # runs of `parallel` alone, on two CPUs
    missing: str = None  # why the engine could not be run at all
    errors: list = field(default_factory=list)  # one for each failed run
    wrong: set = field(default_factory=set)  # workloads that ever computed something else than natively
    ns_per_op: dict = field(default_factory=dict)
    ratio: dict = field(default_factory=dict)  # to the native time at the same scale
    clock: float = None  # time of all workloads by the guest's clock / by the host's - 1
    system: dict = field(default_factory=dict)  # key of SYSTEM_ROWS: median; of latency.ROWS: the one figure
    server: dict = field(default_factory=dict)  # key of server.ROWS: median
    sessions: list = field(default_factory=list)  # server.Session
    two_cpus_ns: float = None  # for an operation of `parallel` on two CPUs

    @property
    def gmean(self):
        """Geometric mean of the ratios of all groups but the parallel one."""
        return targets.gmean(ratio for name, ratio in self.ratio.items() if name != targets.PARALLEL)

    @property
    def speedup(self):
        """How many times as fast two CPUs do the parallel work as one."""
        one = self.ns_per_op.get(targets.PARALLEL)
        return one / self.two_cpus_ns if one and self.two_cpus_ns else None

    def faster(self, peer):
        """{workload: how many times as fast as the peer}. Through the native times: each engine's at its own iterations."""
        return {name: peer.ratio[name] / ratio for name, ratio in self.ratio.items() if name in peer.ratio}

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
    ("guest_bytes", "guest's pages, MiB", lambda run: run.guest_bytes, lambda value: f"{value / MIB:.0f}"),
    ("own_bytes", "the VMM's own, MiB", lambda run: run.own_bytes, lambda value: f"{value / MIB:.1f}"),
    ("instructions_per_s", "M guest instructions/s", lambda run: run.instructions_per_s,
     lambda value: f"{value / 1e6:.0f}"),
]


def _median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def _medians(runs, name, key):
    return _median(getattr(run.results[name], key) for run in runs if name in run.results)


def _check(summary, runs, reference, where=""):
    """Collects the errors, and takes results away that differ from the reference, {name: checksum} at this scale."""
    for run in runs:
        if run.error:
            summary.errors.append(where + run.error)
        for name, result in list(run.results.items()):
            if name in reference and result.checksum != reference[name]:
                summary.wrong.add(name)
                run.wrong[name] = run.results.pop(name)


def summarize(engine, scale, runs, native_runs, names, two_cpus=()):
    """native_runs: those at the same scale, the first of which says what is right; two_cpus: runs of `parallel` on two."""
    summary = Summary(engine, scale, runs, list(two_cpus))
    reference = {name: result.checksum for run in native_runs[:1] for name, result in run.results.items()}
    _check(summary, runs, reference)
    _check(summary, two_cpus, reference, "with two CPUs: ")
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
    summary.two_cpus_ns = _medians(two_cpus, targets.PARALLEL, "ns_per_op")
    whole = [run for run in runs if not run.error]
    summary.system = {key: _median(map(value, runs if key == "boot_s" else whole)) for key, _, value, _ in SYSTEM_ROWS}
    return summary


def duration(ns):
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def _grid(rows, left=1):
    """Lines of a table: the first columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) if i < left else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _cell(value, text):
    return "-" if value is None else text(value)


_ratio = "{:.2f}".format


def _marked(value):
    """Times as fast as the peer; a row that is slower stands out."""
    return _ratio(value) + ("!" if value < 1 else " ")


class _WorkloadTable:
    """The rows: workloads by group with a mean after each; the columns: for each guest its time and what it is to others'."""

    def __init__(self, native, guests):
        self.native = native
        self.guests = guests
        self.peer = targets.peer_of(guests)
        self.rows = [["workload", "native"]]
        for guest in guests:
            self.rows[0] += [guest.engine.title, "x native", *([] if not self.compared(guest) else ["vs TCG "])]

    def compared(self, guest):
        """Whether the guest is held against the peer."""
        return self.peer is not None and guest is not self.peer

    def row(self, label, native, cells):
        """cells(guest) gives (time, ratio to native, times as fast as the peer), the first as text."""
        row = [label, native]
        for guest in self.guests:
            time_text, ratio, faster = cells(guest)
            row += [time_text, _cell(ratio, _ratio)]
            if self.compared(guest):
                row.append(_cell(faster, _marked))
        self.rows.append(row)

    def workload(self, name):
        """A workload's row."""
        def time_of(summary):
            ns = summary.ns_per_op.get(name)
            return summary.absent(name) if ns is None else duration(ns)

        def cells(guest):
            return time_of(guest), guest.ratio.get(name), guest.faster(self.peer).get(name) if self.compared(guest) else None
        self.row(f"  {name}", time_of(self.native), cells)

    def mean(self, label, names):
        """The geometric mean of some rows."""
        def cells(guest):
            faster = guest.faster(self.peer) if self.compared(guest) else {}
            return "", targets.gmean_of(guest.ratio, names), targets.gmean_of(faster, names)
        self.row(label, "", cells)

    def two_cpus(self):
        """What comes of a second CPU."""
        self.row("  on two CPUs", _cell(self.native.two_cpus_ns, duration),
                 lambda guest: (_cell(guest.two_cpus_ns, duration), None, None))
        self.row("  times as fast", _cell(self.native.speedup, _ratio),
                 lambda guest: (_cell(guest.speedup, _ratio), None, None))


def _workload_table(native, guests, names, catalogue):
    table = _WorkloadTable(native, guests)
    counted = []
    for group, title in targets.GROUPS.items():
        members = [workload.name for workload in catalogue if workload.group == group and workload.name in names]
        if not members:
            continue
        table.rows.append([title, *[""] * (len(table.rows[0]) - 1)])
        for name in members:
            table.workload(name)
        if group == targets.PARALLEL:
            table.two_cpus()
        else:
            table.mean("  geometric mean", members)
            counted += members
    table.mean("all but parallel", counted)
    return _grid(table.rows)


def _system_table(guests):
    rows = [["", *(guest.engine.title for guest in guests)]]
    for key, label, text in [(key, label, text) for key, label, _, text in SYSTEM_ROWS] + latency.ROWS:
        rows.append([label, *(_cell(guest.system.get(key), text) for guest in guests)])
    rows.append(["guest's clock, %", *(_cell(guest.clock, lambda value: f"{value * 100:+.1f}") for guest in guests)])
    return _grid(rows)


def _server_table(guests):
    """A whole Debian; None where none ran."""
    if not any(guest.server for guest in guests):
        return []
    peer = targets.peer_of(guests)
    rows = [["a whole Debian"]]
    for guest in guests:
        rows[0] += [guest.engine.title, *(["vs TCG "] if peer and guest is not peer else [])]
    for row in server.ROWS:
        if not any(row.key in guest.server for guest in guests):
            continue
        rows.append([row.label])
        for guest in guests:
            value = guest.server.get(row.key)
            rows[-1].append(_cell(value, lambda value, unit=row.unit: f"{value / unit:.3g}" if value < 1000 * unit else f"{value / unit:.0f}"))
            if peer and guest is not peer:
                rows[-1].append(_cell(server.faster(row, guest, peer), _marked))
    return _grid(rows)


def _remarks(summaries):
    """What went wrong, a line each."""
    for summary in summaries:
        title = summary.engine.title
        if summary.missing:
            yield f"MISSING  {title}: {summary.missing}"
        for error in dict.fromkeys(summary.errors):
            yield (f"FAILED   {title}, {summary.errors.count(error)} of "
                   f"{len(summary.runs) + len(summary.two_cpus) + len(summary.sessions)} runs: {error}")
        if summary.wrong:
            yield f"WRONG    {title}: checksums differ from the host's in {', '.join(sorted(summary.wrong))}"
        if summary.clock is not None and abs(summary.clock) > CLOCK_TOLERANCE:
            yield f"CLOCK    {title}: the guest's clock is {summary.clock * 100:+.1f} % off the host's"


def count(number, noun):
    """'1 run', '2 runs'."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _target_table(guests, catalogue):
    """What was asked of the translator, and what each of vireo's engines reached."""
    peer = targets.peer_of(guests)
    ours = [guest for guest in guests if guest.engine in engines.VIREO]
    rows = [["figure", "to reach"]]
    for guest in ours:
        rows[0] += [guest.engine.title, "met"]
    rows[0] += [peer.engine.title] if peer else []
    for target in targets.TARGETS:
        row = [target.figure, target.to_reach]
        for guest in ours:
            reading = target.read(guest, peer, catalogue)
            row += [reading.text, {None: "-", True: "yes", False: "no"}[reading.met]]
        row += [target.of_peer(peer)] if peer else []
        rows.append(row)
    return _grid(rows, left=2)


def text(native, guests, names, catalogue, rounds, notes=()):
    """The table for people, of some workloads of the catalogue; native: a Summary for each scale; notes: what was left out."""
    scales = ", ".join(f"{guest.engine.title} 1/{guest.scale}" for guest in guests)
    lines = [*_workload_table(native[0], guests, names, catalogue), "",
             f"Time per operation, median of {count(rounds, 'run')}; native: 1/{native[0].scale} of the iterations. Ratios are to "
             "native runs of",
             f"equal iterations: {scales or 'none'}."]
    if targets.peer_of(guests):
        lines.append("vs TCG: how many times as fast as QEMU TCG; ! is slower.")
    if guests:
        lines += ["", *_system_table(guests)]
        table = _server_table(guests)
        lines += ["", *table] if table else []
    if any(guest.engine in engines.VIREO for guest in guests):
        lines += ["", *_target_table(guests, catalogue)]
    problems = [*(f"SKIPPED  {note}" for note in notes), *_remarks([*native, *guests])]
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


def as_json(native, guests, catalogue, where, commands, notes=(), disks=(), start=None):
    """Everything that was measured, each run included; native: a Summary for each scale."""
    peer = targets.peer_of(guests)
    measured = []
    for summary in (*native, *guests):
        compared = peer is not None and summary.engine in engines.VIREO
        measured.append({
            "engine": summary.engine.name, "title": summary.engine.title, "scale": summary.scale,
            "command": commands.get(summary.engine.name), "missing": summary.missing, "errors": summary.errors,
            "wrong": sorted(summary.wrong),
            "median": {"ns_per_op": summary.ns_per_op, "ratio_to_native": summary.ratio, "gmean": summary.gmean,
                       "times_as_fast_as_tcg": summary.faster(peer) if compared else None, "two_cpus_ns": summary.two_cpus_ns,
                       "two_cpus_speedup": summary.speedup, "clock_error": summary.clock, **summary.system,
                       **summary.server},
            "targets": [{"figure": target.figure, "to_reach": target.to_reach,
                         **asdict(target.read(summary, peer, catalogue))} for target in targets.TARGETS]
            if summary.engine in engines.VIREO else None,
            "runs": [asdict(run) for run in summary.runs],
            "two_cpus_runs": [asdict(run) for run in summary.two_cpus],
            "server_runs": [asdict(session) for session in summary.sessions],
        })
    return json.dumps({"version": 2, "host": where, "workloads": [asdict(workload) for workload in catalogue],
                       "skipped": list(notes), "measured": measured, "disks": list(disks), "start": start}, indent=1) + "\n"
