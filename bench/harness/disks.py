"""Disk images: the same requests by `vireo disk bench` and `qemu-img bench`, by turns; converting, discarding, a snapshot, memory."""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

NAME = "disks"
MIB, GIB = 1 << 20, 1 << 30
IMAGE = GIB  # what requests go to: wholly allocated
CONVERTED = 8 * GIB  # half of it data
RUN = 16 * MIB  # of data, then of nothing
LARGE = 100 * GIB
AIOS = ("io_uring", "threads")  # of qemu-img's; the better one counts
# Far apart, and each block once: the golden section of the image, an odd number of blocks.
FAR = (int(0.6180339887 * IMAGE / 4096) | 1) * 4096


@dataclass
class Row:
    """What was measured, in runs that took turns."""
    title: str
    unit: str  # "/s": more is better; "s", "MiB": less is
    aim: float = None  # times as good as the peer; or, without one, the figure itself
    ours: list = field(default_factory=list)
    peers: dict = field(default_factory=dict)  # title: runs

    @property
    def our(self):
        """The median."""
        return statistics.median(self.ours)

    @property
    def peer(self):
        """The better one's median, and its title."""
        if not self.peers:
            return None
        better = max if self.unit == "/s" else min
        return better((statistics.median(runs), title) for title, runs in self.peers.items())

    @property
    def ratio(self):
        """How many times as good as the peer."""
        if not self.peers:
            return None
        return self.our / self.peer[0] if self.unit == "/s" else self.peer[0] / self.our

    @property
    def met(self):
        """Whether it is as good as was aimed at."""
        if self.aim is None:
            return None
        return self.our <= self.aim if self.ratio is None else self.ratio >= self.aim


def _output(*command):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


def _timed(*command):
    """Seconds that the process took."""
    begin = time.monotonic()
    _output(*command)
    return time.monotonic() - begin


def _by_turns(rounds, ways):
    """Each way so often; it is another's turn to be the first in each round."""
    for turn in range(rounds):
        for i in range(len(ways)):
            ways[(turn + i) % len(ways)]()


def missing():
    """Why nothing can be compared, or None."""
    return None if shutil.which("qemu-img") else "qemu-img is not there (qemu-utils)"


def scratch():
    """A directory in the host's memory, where that has the room: what is measured is the way to it, not the host's disk."""
    for place in ("/dev/shm", None):
        if place is None or (os.path.isdir(place) and shutil.disk_usage(place).free > 14 * GIB):
            return tempfile.TemporaryDirectory(prefix="vireo-bench-", dir=place)
    return None


class Bench:
    """Images in a directory, and the runs on them."""

    def __init__(self, vireo, directory, rounds, quick):
        self.vireo, self.dir, self.rounds = vireo, Path(directory), rounds
        self.factor = 10 if quick else 1
        self.converted = CONVERTED // (16 if quick else 1)
        self.rows = []

    def _image(self, name):
        return self.dir / name

    def fill(self):
        """The images that requests go to."""
        noise = os.urandom(4 * MIB)
        with open(self._image("raw.raw"), "wb") as file:
            for _ in range(IMAGE // len(noise)):
                file.write(noise)
        _output("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self._image("raw.raw"), self._image("qcow2.qcow2"))

    def requests(self, kind, write, block, depth, progress):
        """One row: as many requests as take some tenths of a second."""
        image, step = self._image(f"{kind}.{kind}"), FAR if block == 4096 else block
        count = (60000 if block == 4096 else 16384) // self.factor
        row = Row(f"{kind} {'write' if write else 'read'} {'4 KiB random' if block == 4096 else '64 KiB sequential'}, depth {depth}",
                  "/s", 1.3 if depth > 1 else 1.0, peers={f"qemu-img, {aio}": [] for aio in AIOS})

        def ours():
            told = json.loads(_output(self.vireo, "disk", "bench", image, "--block", block, "--depth", depth, "--count", count,
                                      "--step", step, "--json", *(["--write"] if write else [])))
            row.ours.append(told["per-second"])

        def theirs(aio):
            text = _output("qemu-img", "bench", "-f", kind, "-s", block, "-d", depth, "-c", count, "-S", step, "-i", aio,
                           *(["-w"] if write else []), image)
            row.peers[f"qemu-img, {aio}"].append(count / float(re.search(r"in ([\d.]+) seconds", text).group(1)))

        _by_turns(self.rounds, [ours, *(lambda aio=aio: theirs(aio) for aio in AIOS)])
        self.rows.append(row)
        progress(row.title)

    def against_raw(self):
        """qcow2 beside raw, of our own."""
        of = {row.title: row for row in self.rows}
        for title, row in list(of.items()):
            if title.startswith("qcow2 "):
                raw = of["raw " + title.removeprefix("qcow2 ")]
                self.rows.append(Row(f"{title}: against raw", "/s", 0.9, row.ours, {"vireo, raw": raw.ours}))

    def convert(self, progress):
        """A half-empty image, both ways; qemu-img's flushes nothing, as it is by default."""
        half = self._image("half.raw")
        noise = os.urandom(RUN)
        with open(half, "wb") as file:
            for at in range(0, self.converted, 2 * RUN):
                file.seek(at)
                file.write(noise)
            file.truncate(self.converted)
        to = self._image("to")
        size = f"{self.converted / GIB:.3g} GiB, half empty"
        for source, kind, there in ((half, "raw", "qcow2"), (self._image("half.qcow2"), "qcow2", "raw")):
            row = Row(f"convert {kind} to {there}, {size}", "s", 1.0, peers={"qemu-img": [], "qemu-img -W": []})
            ways = [(row.ours, (self.vireo, "disk", "convert", "--format", kind, source, to, "--to-format", there)),
                    *((row.peers[title], ("qemu-img", "convert", *more, "-f", kind, "-O", there, source, to))
                      for title, more in (("qemu-img", []), ("qemu-img -W", ["-W", "-m", "16"])))]

            def once(runs, command):
                runs.append(_timed(*command))
                to.unlink()

            # The first to write pays for memory that the host has not touched yet: nobody's figure.
            once([], ways[0][1])
            _by_turns(min(self.rounds, 3), [lambda way=way: once(*way) for way in ways])
            self.rows.append(row)
            progress(row.title)
            if there == "qcow2":
                _output(self.vireo, "disk", "convert", source, self._image("half.qcow2"))
        half.unlink()
        self._image("half.qcow2").unlink()

    def discard(self, progress):
        """All of an image at once, with the flush after it."""
        for kind in ("raw", "qcow2"):
            row = Row(f"{kind} discard of 1 GiB", "s", 0.1)
            for _ in range(self.rounds):
                image = self._image(f"discard.{kind}")
                shutil.copy(self._image(f"{kind}.{kind}"), image)
                told = json.loads(_output(self.vireo, "disk", "bench", image, "--discard", "--block", IMAGE, "--count", 1,
                                          "--flush-every", 1, "--json"))
                row.ours.append(told["seconds"])
                image.unlink()
            self.rows.append(row)
            progress(row.title)

    def large(self, progress):
        """An image whose tables are all there: a snapshot of it, and the memory that reading everywhere in it takes."""
        image = self._image("large.qcow2")
        _output("qemu-img", "create", "-f", "qcow2", "-o", "preallocation=metadata", image, LARGE)
        theirs = self._image("theirs.qcow2")
        _output("cp", "--sparse=always", image, theirs)
        row = Row("snapshot of 100 GiB, the whole command", "s", 0.05)
        peer = Row("snapshot of 100 GiB: against qemu-img", "s", 1.0, row.ours, {"qemu-img": []})
        _output(self.vireo, "disk", "snapshot", "list", image)  # the program and what it needs come from the host's disk
        for turn in range(self.rounds):
            row.ours.append(_timed(self.vireo, "disk", "snapshot", "create", image, f"turn{turn}"))
            peer.peers["qemu-img"].append(_timed("qemu-img", "snapshot", "-c", f"turn{turn}", theirs))
        theirs.unlink()
        self.rows += [row, peer]
        progress(row.title)
        row = Row("memory of a 100 GiB image, read at random", "MiB", 16)
        for _ in range(min(self.rounds, 2)):
            peak = [json.loads(_output(self.vireo, "disk", "bench", path, "--pattern", "random", "--count", 200000 // self.factor,
                                       "--json"))["peak-memory"] for path in (image, self._image("raw.raw"))]
            row.ours.append((peak[0] - peak[1]) / MIB)
        self.rows.append(row)
        progress(row.title)

    def run(self, progress):
        """All of it."""
        self.fill()
        for kind in ("raw", "qcow2"):
            for write in (False, True):
                for block, depth in ((4096, 1), (4096, 32), (65536, 1), (65536, 32)):
                    self.requests(kind, write, block, depth, progress)
        self.against_raw()
        self.convert(progress)
        self.discard(progress)
        self.large(progress)
        return self.rows


def run(vireo, rounds, quick, progress):
    """All rows."""
    with scratch() as directory:
        return Bench(vireo, directory, rounds, quick).run(progress)


def _figure(value, unit):
    if unit == "/s":
        return f"{value:.0f} {unit}"
    return f"{value:.3f} {unit}" if unit == "s" else f"{value:.1f} {unit}"


def _cells(row):
    peer = _figure(row.peer[0], row.unit) if row.peers else "-"
    ratio = f"{row.ratio:.2f}" if row.peers else "-"
    aim = "-" if row.aim is None else f"{row.aim:g}" if row.peers else _figure(row.aim, row.unit)
    return (row.title, _figure(row.our, row.unit), peer, row.peer[1] if row.peers else "-", ratio, aim,
            "-" if row.met is None else "yes" if row.met else "no")


def table(rows, rounds):
    """Lines for people."""
    cells = [("disk images", "vireo", "peer", "which", "times as good", "aim", "met"), *map(_cells, rows)]
    widths = [max(len(cell[i]) for cell in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) if i in (0, 3) else text.rjust(width)
                       for i, (text, width) in enumerate(zip(cell, widths))).rstrip() for cell in cells]
    return [*lines, f"Medians of {rounds} runs that took turns, on files in the host's memory where it has the room; of qemu-img the better "
            "way."]


def as_json(rows):
    """Every run."""
    return [{"title": row.title, "unit": row.unit, "aim": row.aim, "vireo": row.ours, "peers": row.peers, "ratio": row.ratio,
             "met": row.met} for row in rows]
