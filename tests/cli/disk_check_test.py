"""`vireo disk check`, on images damaged in many ways: what it finds is what qemu-img finds, and what it repairs is whole."""

import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

KIB, MIB = 1 << 10, 1 << 20
HAVE_QEMU = shutil.which("qemu-img") is not None
COPIED, PACKED, OFFSETS = 1 << 63, 1 << 62, 0x00FFFFFFFFFFFE00


class Image:
    """The bytes of a qcow2 image, with its tables at hand."""

    def __init__(self, path):
        self.path = path
        self.data = bytearray(path.read_bytes())
        self.cluster = 1 << self.get(20, 4)
        self.order = self.get(96, 4) if self.get(4, 4) >= 3 else 4
        self.l1, self.table = self.get(40), self.get(48)
        self.n_l1 = self.get(36, 4)

    def get(self, at, size=8):
        """A field."""
        return int.from_bytes(self.data[at:at + size], "big")

    def put(self, at, value, size=8):
        """Sets a field."""
        self.data[at:at + size] = (value % (1 << size * 8)).to_bytes(size, "big")

    def save(self, path):
        """All of it into a file."""
        path.write_bytes(self.data)

    def l2(self, i=0):
        """Where the i-th L2 table is that there is."""
        tables = [self.get(self.l1 + k * 8) & OFFSETS for k in range(self.n_l1)]
        return [t for t in tables if t][i]

    def entries(self, i=0, step=8):
        """Where the i-th L2 table has entries."""
        table = self.l2(i)
        return [at for at in range(table, table + self.cluster, step) if self.get(at)]

    def refcount_at(self, cluster):
        """Where a refcount of 16 bits or more is, in whole bytes."""
        size = (1 << self.order) // 8
        per_block = self.cluster // size
        return self.get(self.table + cluster // per_block * 8) + cluster % per_block * size, size

    def set_refcount(self, cluster, value):
        """Sets one."""
        at, size = self.refcount_at(cluster)
        self.put(at, value, size)


def set_count(cluster_of, value):
    """A refcount of the cluster that an entry refers to."""
    return lambda im: im.set_refcount(cluster_of(im) // im.cluster, value)


def data_of(im, i=0):
    """The i-th data cluster."""
    return im.get(im.entries()[i]) & OFFSETS


def grown(im, n):
    """n clusters at the end that nobody refers to, with a refcount of 1."""
    end = -(-len(im.data) // im.cluster)
    im.data.extend(bytes((end + n) * im.cluster - len(im.data)))
    for i in range(n):
        im.set_refcount(end + i, 1)


# What is done to an image, by name.
DAMAGES = {
    "refcount of data 0": set_count(data_of, 0),
    "refcount of data 2": set_count(data_of, 2),
    "refcount of data 7": set_count(lambda im: data_of(im, 3), 7),
    "refcount of L2 0": set_count(lambda im: im.l2(), 0),
    "refcount of L2 2": set_count(lambda im: im.l2(), 2),
    "refcount of L1 0": set_count(lambda im: im.l1, 0),
    "refcount of L1 3": set_count(lambda im: im.l1, 3),
    "refcount of header 0": set_count(lambda im: 0, 0),
    "refcount of the table 2": set_count(lambda im: im.table, 2),
    "refcount of the block 0": set_count(lambda im: im.get(im.table), 0),
    "leak at the end": lambda im: grown(im, 1),
    "leaks at the end": lambda im: grown(im, 5),
    "lost L2 entry": lambda im: im.put(im.entries()[2], 0),
    "lost L1 entry": lambda im: im.put(im.l1, 0),
    "L2 entry not copied": lambda im: im.put(im.entries()[1], im.get(im.entries()[1]) & ~COPIED),
    "L1 entry not copied": lambda im: im.put(im.l1, im.get(im.l1) & ~COPIED),
    "two entries of one cluster": lambda im: im.put(im.entries()[4], im.get(im.entries()[5])),
    "entry refers to L1": lambda im: im.put(im.entries()[0], COPIED | im.l1),
    "entry refers to its table": lambda im: im.put(im.entries()[0], COPIED | im.l2()),
    "entry refers to the header": lambda im: im.put(im.entries()[0] + 1, 0, 7),
    "entry beyond the end": lambda im: im.put(im.entries()[0], COPIED | 1 << 40),
    "entry at 2^55": lambda im: im.put(im.entries()[0], COPIED | 1 << 55),
    "entry between clusters": lambda im: im.put(im.entries()[0], im.get(im.entries()[0]) + 512),
    "entry with reserved bits": lambda im: im.put(im.entries()[0], im.get(im.entries()[0]) | 6),
    "zero entry between clusters": lambda im: im.put(im.entries()[0], (im.get(im.entries()[0]) + 512) | 1),
    "compressed and copied": lambda im: im.put(im.entries()[0], COPIED | PACKED | data_of(im)),
    "compressed beyond the end": lambda im: im.put(im.entries()[0], PACKED | 1 << 40),
    "L1 entry beyond the end": lambda im: im.put(im.l1, COPIED | 1 << 40),
    "L1 entry with reserved bits": lambda im: im.put(im.l1, im.get(im.l1) | 1 << 60),
    "no refcount block": lambda im: im.put(im.table, 0),
    "refcount block between clusters": lambda im: im.put(im.table, im.get(im.table) + 512),
    "refcount block with reserved bits": lambda im: im.put(im.table, im.get(im.table) | 8),
    "refcount block is the header": lambda im: im.put(im.table, 0x10),
    "refcount block is data": lambda im: im.put(im.table, data_of(im)),
    "second block is the first": lambda im: im.put(im.table + 8, im.get(im.table)),
    "all refcounts 0": lambda im: [im.set_refcount(i, 0) for i in range(len(im.data) // im.cluster)],
    "all refcounts 2": lambda im: [im.set_refcount(i, 2) for i in range(len(im.data) // im.cluster)],
    "cut in the middle": lambda im: im.data.__delitem__(slice(len(im.data) * 3 // 4, None)),
    "dirty": lambda im: im.put(79, 1, 1),
    "corrupt": lambda im: im.put(79, 2, 1),
    "dirty, and refcount of data 0": lambda im: (im.put(79, 1, 1), im.set_refcount(data_of(im) // im.cluster, 0)),
}

SHAPES = {
    "64K": [],
    "512": ["-o", "cluster_size=512"],
    "4K, 64 bits": ["-o", "cluster_size=4k,refcount_bits=64"],
    "4K, 32 bits": ["-o", "cluster_size=4k,refcount_bits=32"],
}


@unittest.skipUnless(HAVE_QEMU, "qemu-img is not there")
class Check(harness.Case):
    """Against qemu-img check."""

    def make(self, options, snapshot=False, packed=False):
        """An image with data in runs, zeroes, and more as asked for."""
        image = self.dir / "image.qcow2"
        image.unlink(missing_ok=True)
        qemu = lambda *args: subprocess.run(args, check=True, capture_output=True)  # pylint: disable=unnecessary-lambda-assignment
        qemu("qemu-img", "create", "-f", "qcow2", *options, image, "3M")
        writes = ["write -P 1 0 300k", "write -P 2 700k 200k", "write -z 500k 100k", "write -P 3 2M 64k"]
        if packed:
            writes.append("write -c -P 4 1M 64k")
        qemu("qemu-io", "-f", "qcow2", *(x for w in writes for x in ("-c", w)), image)
        if snapshot:
            qemu("qemu-img", "snapshot", "-c", "one", image)
            qemu("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 100k", image)
        return Image(image)

    def ours(self, path, *args):
        """What vireo says: a status, and JSON."""
        result = self.run_vireo("disk", "check", path, "--json", *args)
        self.assertIn(result.returncode, (0, 3), result.stderr.decode())
        return result.returncode, json.loads(result.stdout)

    def theirs(self, path):
        """Errors and leaks that qemu-img finds; None where it cannot open it."""
        result = subprocess.run(["qemu-img", "check", "-f", "qcow2", "--output=json", path], check=False,
                                capture_output=True)
        if not result.stdout:
            return None
        told = json.loads(result.stdout)
        return told.get("corruptions", 0), told.get("leaks", 0), told.get("check-errors", 0)

    def same(self, path):
        """Both find the same; what that is."""
        _, ours = self.ours(path)
        theirs = self.theirs(path)
        if not theirs[2]:
            self.assertEqual((ours["errors"], ours["leaks"]), theirs[:2], ours["findings"])
        return ours

    def repaired(self, path, before, name):
        """With --repair, nothing is left for qemu-img; content that was there reads as before."""
        raw = self.dir / "before.raw"
        readable = name != "entry refers to its table" and subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw], check=False,
                                  capture_output=True).returncode == 0
        status, told = self.ours(path, "--repair")
        left = told["errors"] - told["errors_repaired"], told["leaks"] - told["leaks_repaired"]
        self.assertEqual(status, 3 if any(left) else 0)
        self.assertEqual(told["errors"], before["errors"])
        again = self.ours(path)[1]
        self.assertEqual((again["errors"], again["leaks"]), left)
        if not any(left):
            self.assertEqual(self.theirs(path), (0, 0, 0))
        if readable:
            subprocess.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw], check=True,
                           capture_output=True)
        return left

    # Where something refers to metadata, or nowhere, no repair knows what was meant.
    STAYS = {"entry refers to L1", "entry refers to its table", "entry refers to the header", "entry beyond the end",
             "entry at 2^55", "entry between clusters", "entry with reserved bits", "compressed beyond the end",
             "L1 entry beyond the end", "L1 entry with reserved bits", "cut in the middle", "compressed and copied"}

    def test_damages(self):
        """Each damage, on images of several shapes."""
        for shape, options in list(SHAPES.items())[:None if "VIREO_TEST_EDITS" in os.environ else 2]:
            for name, damage in DAMAGES.items():
                with self.subTest(shape=shape, damage=name):
                    image = self.make(options)
                    damage(image)
                    image.save(image.path)
                    before = self.same(image.path)
                    left = self.repaired(image.path, before, name)
                    if name not in self.STAYS:
                        self.assertEqual(left, (0, 0))

    @staticmethod
    def edit(im, dice):
        """A field of the metadata becomes another, in one of the ways that such things go wrong."""
        end = len(im.data) // im.cluster
        where = dice.randrange(4)
        if where == 0:
            im.set_refcount(dice.randrange(end), dice.choice([0, 1, 2, 3, 200]))
            return
        if where == 1:
            at = im.l1 + dice.randrange(im.n_l1) * 8
        else:
            tables = [im.get(im.l1 + k * 8) & OFFSETS for k in range(im.n_l1)]
            tables = [t for t in tables if t and t + im.cluster <= len(im.data)]
            if not tables:
                return
            at = dice.choice(tables) + dice.randrange(im.cluster // 8) * 8
        old = im.get(at)
        new = dice.choice([0, old ^ COPIED, old ^ 1, COPIED | dice.randrange(end) * im.cluster,
                           dice.randrange(end + 3) * im.cluster, old + im.cluster, old ^ PACKED])
        # qemu-img reads the header as a table where L1 says so.
        im.put(at, new if where > 1 or new & OFFSETS else 0)

    def test_edits(self):
        """Random edits of images with snapshots and compressed clusters."""
        shapes = [["-o", "cluster_size=4k"], ["-o", "cluster_size=1k,compat=0.10"], ["-o", "cluster_size=512,refcount_bits=32"]]
        for shape, options in enumerate(shapes):
            whole = self.make(options, snapshot=True, packed=True)
            for seed in range(int(os.environ.get("VIREO_TEST_EDITS", "10"))):
                with self.subTest(shape=options, seed=seed):
                    dice = random.Random(seed * 10 + shape)
                    whole.path.write_bytes(whole.data)
                    image = Image(whole.path)
                    for _ in range(dice.choice([1, 1, 2, 5])):
                        self.edit(image, dice)
                    image.save(image.path)
                    _, ours = self.ours(image.path)
                    theirs = self.theirs(image.path)
                    found = ours["errors"], ours["leaks"]
                    if any("something else" in x for x in ours["findings"]) or len(ours["findings"]) == 100:
                        self.assertGreaterEqual(found[0], theirs[0])
                        self.assertEqual(found[1], theirs[1])
                    elif not theirs[2]:
                        self.assertEqual(found, theirs[:2], ours["findings"])
                    self.repaired(image.path, ours, "entry refers to its table")

    def test_options(self):
        """What it says, and its status."""
        image = self.make([])
        result = self.run_vireo("disk", "check", image.path)
        self.assertEqual((result.returncode, result.stdout), (0, b"sound\n"))
        grown(image, 2)
        image.save(image.path)
        result = self.run_vireo("disk", "check", image.path)
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stdout.splitlines()[-1], b"0 errors, 2 leaked clusters")
        self.assertRegex(result.stdout.splitlines()[0], rb"^offset 0x[0-9a-f]+: refcount 1, references 0$")
        self.assertEqual(self.run_vireo("disk", "check", image.path, "--quiet").stdout, b"")
        result = self.run_vireo("disk", "check", image.path, "--repair")
        self.assertEqual((result.returncode, result.stdout.splitlines()[-1]),
                         (0, b"0 errors, 2 leaked clusters; repaired: 0 and 2"))
        raw = self.dir / "x.raw"
        raw.write_bytes(bytes(MIB))
        self.one_line(self.run_vireo("disk", "check", raw), 2, "raw", "accepted is qcow2")

    def test_in_use(self):
        """Nobody checks what somebody writes to."""
        image = self.make([])
        with open(image.path, "rb+") as file:
            fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
            self.one_line(self.run_vireo("disk", "check", image.path), 2, str(image.path))


if __name__ == "__main__":
    harness.main()
