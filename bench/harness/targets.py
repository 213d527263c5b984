"""What the translator is to reach, next to QEMU's TCG in the same run: figures for the reader, which fail no run."""

import math
import statistics
from dataclasses import dataclass
from typing import Callable

from . import engines, server

MIB = 1 << 20
FREED_SECONDS = 2.0  # of which Linux itself takes up to two: its pause between two looks at what is free
PARALLEL = "parallel"  # the group, and its workload: for the figure of two CPUs, in no mean
GROUPS = {"integer": "integer", "float": "floating point, SIMD", "process": "system", PARALLEL: "parallel"}  # in the table's order


def gmean(values):
    """Geometric mean; None of nothing."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def gmean_of(ratios, names):
    """Of those of the names that have a ratio."""
    return gmean(ratios[name] for name in names if name in ratios)


def peer_of(guests):
    """The summary of QEMU's TCG, or None where it was not run."""
    return next((guest for guest in guests if guest.engine is engines.QEMU), None)


@dataclass
class Reading:
    """A figure as it came out."""
    value: float = None
    text: str = "-"
    met: bool = None  # None where the run cannot tell


@dataclass(frozen=True)
class Target:
    figure: str
    to_reach: str
    read: Callable  # (summary, the peer's or None, the catalogue of workloads) -> Reading
    of_peer: Callable = lambda _: "-"  # what the peer came to, where that says something, as text


def _boot(summary, peer, _):
    mine, other = summary.system.get("boot_s"), peer.system.get("boot_s") if peer else None
    if not mine or not other:
        return Reading()
    return Reading(other / mine, f"{other / mine:.2f}x", other / mine >= 2)


def _rows(summary, peer, catalogue, *groups):
    """({workload: times as fast as the peer} of some groups, whether that is all of them)."""
    faster = summary.faster(peer) if peer else {}
    names = [workload.name for workload in catalogue if workload.group in groups]
    return {name: faster[name] for name in names if name in faster}, set(names) <= set(faster)


def _group(group, least):
    def read(summary, peer, catalogue):
        rows, whole = _rows(summary, peer, catalogue, group)
        if not rows:
            return Reading()
        mean = gmean(rows.values())
        return Reading(mean, f"{mean:.2f}x" + ("" if whole else f" ({len(rows)} of its rows)"), mean >= least if whole else None)
    return read


def _worst(summary, peer, catalogue):
    rows, whole = _rows(summary, peer, catalogue, *(group for group in GROUPS if group != PARALLEL))
    if not rows:
        return Reading()
    name = min(rows, key=rows.get)
    slower = sum(value < 1 for value in rows.values())
    more = f", {slower} slower" if slower > 1 else ""
    return Reading(rows[name], f"{rows[name]:.2f}x ({name}{more})", False if slower else True if whole else None)


def _speedup(summary, *_):
    value = summary.speedup
    return Reading(value, f"{value:.2f}x", value >= 1.8) if value else Reading()


def _memory(summary, *_):
    value = summary.system.get("own_bytes")
    return Reading(value, f"{value / MIB:.1f} MiB", value <= 64 * MIB) if value else Reading()


def _idle(summary, *_):
    value = summary.system.get("idle_percent")
    return Reading(value, f"{value:.2f} %", value <= 3) if value is not None else Reading()


def _timer(summary, *_):
    value = summary.system.get("timer_loop_ns")
    return Reading(value[1], f"{value[1] / 1e6:.2f} ms", value[1] <= 1e6) if value else Reading()


def _login(summary, peer, _):
    row = next(row for row in server.ROWS if row.key == "login_s")
    value = server.faster(row, summary, peer) if peer else None
    return Reading(value, f"{value:.2f}x", value >= 2) if value else Reading()


def _carried(summary, peer, _):
    """The worst of what disk and network carry."""
    rows = [row for row in server.ROWS if row.more]
    values = {row.key: server.faster(row, summary, peer) for row in rows} if peer else {}
    values = {key: value for key, value in values.items() if value}
    if not values:
        return Reading()
    key = min(values, key=values.get)
    met = values[key] >= 1.5 if len(values) == len(rows) or values[key] < 1.5 else None
    return Reading(values[key], f"{values[key]:.2f}x ({key.rpartition('_')[0]})", met)


def _freed(summary, *_):
    value = summary.server.get("freed_s")
    return Reading(value, f"{value:.2f} s", value <= FREED_SECONDS) if value is not None else Reading()


def _server_idle(summary, *_):
    value = summary.server.get("server_idle_percent")
    return Reading(value, f"{value:.2f} %", value <= 3) if value is not None else Reading()


TARGETS = [
    Target("boot to init, whole process", "2x as fast as TCG", _boot),
    Target("integer rows, geometric mean", "1.7x as fast as TCG", _group("integer", 1.7)),
    Target("floating-point and SIMD rows, geometric mean", "6x as fast as TCG", _group("float", 6)),
    Target("system rows, geometric mean", "3x as fast as TCG", _group("process", 3)),
    Target("slowest row", "not slower than TCG", _worst),
    Target("two CPUs, parallel work", "1.8x one CPU", _speedup, lambda peer: _speedup(peer).text),
    Target("memory beside the guest's pages, one CPU", "64 MiB at most", _memory, lambda peer: _memory(peer).text),
    Target("idle guest, one CPU", "3 % of a CPU at most", _idle, lambda peer: _idle(peer).text),
    Target("99 % of timers, while the guest spins", "1 ms late at most", _timer, lambda peer: _timer(peer).text),
    Target("Debian to its login prompt, whole process", "2x as fast as TCG", _login),
    Target("disk and network, slowest row", "1.5x TCG", _carried),
    Target("freed memory, 90 % given back", "2 s after its release", _freed, lambda peer: _freed(peer).text),
    Target("Debian, idle", "3 % of a CPU at most", _server_idle, lambda peer: _server_idle(peer).text),
]
