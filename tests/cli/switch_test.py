"""`vireo switch` from outside: ports that speak its protocol (src/net/switch_wire.h, switch_ring.h), its options, status and captures."""

import array
import json
import mmap
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

MAGIC, VERSION = 0x57535256, 1
JOIN, STATUS = 1, 2
WAKE, OFFLOADS = 1, 2
CSUM, TSO4, TSO6 = 1, 2, 4
SKIP = 0xFFFFFFFF
HEAD, RECORD = 4096, 24
PUT, START, TAKEN, WAITS = 0, 8, 64, 128  # offsets of the positions
BROADCAST = b"\xff" * 6
PLAIN = bytes(10)  # a virtio-net header that asks for nothing


def mac(n):
    """The address of test interface n."""
    return bytes([0x52, 0x54, 0, 0, 0, n])


def frame(to, source, text=b"", vlan=None, kind=0x88B5):
    """An Ethernet frame of an experimental type."""
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return to + source + tag + struct.pack(">H", kind) + text.ljust(46, b".")


class Refused(Exception):
    """The switch said no: errno and its reason."""


class Ring:
    """One end of a ring in shared memory."""

    def __init__(self, memory, start, size):
        self.memory, self.start, self.size = memory, start, size
        self.words = memoryview(memory).cast("Q")  # read and written whole, where struct goes byte by byte
        self.position = self.first = 0

    def _u64(self, offset):
        return self.words[(self.start + offset) // 8]

    def set(self, offset, value):
        """Writes one of the positions."""
        self.words[(self.start + offset) // 8] = value

    def put(self, header, data):
        """Puts a frame; False when there is no room."""
        length = (RECORD + len(data) + 15) & ~15
        end = self.size - self.position % self.size  # this end never moves `start`
        needed = length if length <= end else end + length
        if self.position + needed - self._u64(TAKEN) > self.size:
            return False
        at = self.start + HEAD + self.position % self.size
        if length > end:
            struct.pack_into("<I", self.memory, at, SKIP)
            self.position += end
            at = self.start + HEAD
        self.memory[at:at + RECORD] = struct.pack("<I", len(data)) + header + bytes(10)
        self.memory[at + RECORD:at + RECORD + len(data)] = data
        self.position += length
        self.set(PUT, self.position)
        return True

    def take(self):
        """The next frame and its header, or None."""
        while self._u64(PUT) != self.position:
            self.first = self._u64(START)
            offset = (self.position - self.first) % self.size
            at = self.start + HEAD + offset
            length, header = struct.unpack_from("<I10s", self.memory, at)
            if length == SKIP:
                self.position += self.size - offset
                self.set(TAKEN, self.position)
                continue
            data = bytes(self.memory[at + RECORD:at + RECORD + length])
            self.position += (RECORD + length + 15) & ~15
            self.set(TAKEN, self.position)
            return header, data
        struct.pack_into("<I", self.memory, self.start + WAITS, 1)
        return None


def connect(path):
    """A connection to the switch."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(harness.PATIENCE)
    sock.connect(str(path))
    return sock


def hello(kind=JOIN, name="", address=bytes(6), vlan=0, trunk=False, offloads=0, version=VERSION):
    """The first message."""
    return struct.pack("<IHHIHBB6s2x32s", MAGIC, version, kind, offloads, vlan, trunk, 0, address, name.encode())


def ask(sock, message):
    """Says hello: the welcome's fields, and the descriptor that came with it."""
    sock.send(message)
    data, control, _, _ = sock.recvmsg(512, 64)
    fds = array.array("i")
    for _, _, payload in control:
        fds.frombytes(payload[:len(payload) // 4 * 4])
    magic, version, error, offloads, to_switch, from_switch, length, text = struct.unpack("<IHxxiIQQQ256s", data)
    assert (magic, version) == (MAGIC, VERSION)
    if error:
        raise Refused(error, text.split(b"\0")[0].decode())
    return offloads, to_switch, from_switch, length, fds[0]


class Port:
    """An interface's end of a port."""

    def __init__(self, path, name, address=bytes(6), **wishes):
        self.sock = connect(path)
        try:
            _, to_switch, from_switch, _, fd = ask(self.sock, hello(JOIN, name, address, **wishes))
        except Refused:
            self.sock.close()
            raise
        self.memory = mmap.mmap(fd, 2 * HEAD + to_switch + from_switch)
        os.close(fd)
        self.out = Ring(self.memory, 0, to_switch)
        self.into = Ring(self.memory, HEAD + to_switch, from_switch)
        self.sock.setblocking(False)
        self.take_all()

    def wake(self):
        """Tells the switch to look."""
        self.sock.send(struct.pack("<II", WAKE, 0))

    def send(self, *frames, header=PLAIN):
        """Sends frames and wakes the switch."""
        for data in frames:
            limit = time.monotonic() + harness.PATIENCE
            while not self.out.put(header, data):
                assert time.monotonic() < limit, "the switch takes nothing"
                self.wake()
                time.sleep(0.001)
        self.wake()

    def take_all(self):
        """What is there."""
        frames = []
        while (taken := self.into.take()) is not None:
            frames.append(taken)
        return frames

    def receive(self, with_header=False):
        """Waits for one frame."""
        limit = time.monotonic() + harness.PATIENCE
        while time.monotonic() < limit:
            taken = self.into.take()
            if taken:
                return taken if with_header else taken[1]
            time.sleep(0.001)
        raise AssertionError("no frame came")

    def close(self):
        """Hangs up."""
        self.sock.close()


class SwitchCase(harness.Case):
    """A switch on a socket of its own."""

    def start(self, *args, path=None):
        """A switch that listens."""
        self.path = path or self.dir / "socket"
        self.process = subprocess.Popen([harness.VIREO, "switch", "test", "--socket", self.path, *map(str, args)],
                                        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.addCleanup(self.process.stderr.close)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.assertIn(b"listens on", self.process.stderr.readline())
        return self.path

    def port(self, name, n=0, **wishes):
        """A port; n: its address."""
        port = Port(self.path, name, mac(n) if n else bytes(6), **wishes)
        self.addCleanup(port.close)
        return port

    def ports(self, *names):
        """Ports with addresses 1, 2, ..."""
        return [self.port(name, i + 1) for i, name in enumerate(names)]

    def status(self):
        """What --status prints."""
        result = self.run_vireo("switch", "test", "--socket", self.path, "--status")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return json.loads(result.stdout)

    def port_status(self, name):
        """Of one port."""
        return next(p for p in self.status()["ports"] if p["name"] == name)

    def until(self, condition, what):
        """Waits until it holds."""
        limit = time.monotonic() + harness.PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), limit, what)
            time.sleep(0.01)

    def settle(self, source):
        """The switch has worked through what the port sent."""
        self.until(lambda: struct.unpack_from("<Q", source.memory, TAKEN)[0] == source.out.position, "the ring is empty")
        self.status()  # it is answered behind the turn that emptied the ring

    def nothing(self, source, *others):
        """None of the others is sent anything of what the port has sent."""
        self.settle(source)
        for other in others:
            self.assertEqual(other.take_all(), [])


class Forwarding(SwitchCase):
    """Where frames go."""

    def test_flood_and_learn(self):
        """Unknown addresses go everywhere, known ones to their port, until that goes."""
        self.start()
        a, b, c = self.ports("a", "b", "c")
        one = frame(mac(2), mac(1), b"one")
        a.send(one)
        self.assertEqual((b.receive(), c.receive()), (one, one))
        two = frame(mac(1), mac(2), b"two")
        b.send(two)
        self.assertEqual(a.receive(), two)
        self.nothing(b, b, c)
        a.send(one)
        self.assertEqual(b.receive(), one)
        self.nothing(a, a, c)
        broadcast = frame(BROADCAST, mac(1))
        a.send(broadcast)
        self.assertEqual((b.receive(), c.receive()), (broadcast, broadcast))
        self.nothing(a, a)
        self.assertEqual({(e["mac"], e["vlan"], e["port"]) for e in self.status()["addresses"]},
                         {("52:54:00:00:00:01", 1, "a"), ("52:54:00:00:00:02", 1, "b")})
        b.close()
        self.until(lambda: len(self.status()["ports"]) == 2, "b is gone")
        a.send(one)
        self.assertEqual(c.receive(), one)

    def test_ageing(self):
        """An address that is not seen for a while is unknown again."""
        self.start("--mac-age", "0.2")
        a, b, c = self.ports("a", "b", "c")
        b.send(frame(mac(9), mac(2)))
        a.receive(), c.receive()
        self.until(lambda: not self.status()["addresses"], "b's address is forgotten")
        a.send(frame(mac(2), mac(1)))
        b.receive(), c.receive()

    def test_order_and_volume(self):
        """Thousands of frames of many sizes, in order, as they were; headers too."""
        self.start()
        a, b = self.port("a", 1), self.port("b", 2, offloads=CSUM | TSO4)
        b.send(frame(BROADCAST, mac(2)))
        a.receive()
        header = struct.pack("<BBHHHH", 1, 1, 54, 1448, 34, 16)
        sent = 0
        for n in range(3000):
            data = frame(mac(2), mac(1), bytes([n % 256]) * (n * 37 % 65000))
            a.send(data, header=header)
            sent += len(data)
            if n % 10 == 9 or n == 2999:
                for m in range(n // 10 * 10, n + 1):
                    self.assertEqual(b.receive(with_header=True),
                                     (header, frame(mac(2), mac(1), bytes([m % 256]) * (m * 37 % 65000))))
        self.assertEqual(self.port_status("a")["in"]["bytes"], sent)

    def test_offloads(self):
        """A port that takes large packets gets them whole; one that does not gets segments with their checksums done."""
        self.start()
        a, plain, full = self.port("a", 1), self.port("plain", 2), self.port("full", 3, offloads=CSUM | TSO4 | TSO6)
        ip = bytes.fromhex("4500") + struct.pack(">H", 40 + 3000) + bytes.fromhex("00004000 4006 0000 0a000001 0a000002")
        tcp = struct.pack(">HHIIBBHHH", 1, 2, 1000, 0, 0x50, 0x10, 100, 0, 0)
        data = mac(9) + mac(1) + bytes.fromhex("0800") + ip + tcp + bytes(range(250)) * 12
        header = struct.pack("<BBHHHH", 1, 1, 54, 1448, 34, 16)
        a.send(data, header=header)
        self.assertEqual(full.receive(with_header=True), (header, data))
        parts = [plain.receive(with_header=True) for _ in range(3)]
        self.assertEqual(b"".join(part[54:] for _, part in parts), data[54:])
        for head, part in parts:
            self.assertEqual(head[:2], b"\0\0")
            self.assertEqual(self.checksum(part[14:34]), 0xFFFF)
            pseudo = part[26:34] + struct.pack(">HH", 6, len(part) - 34)
            self.assertEqual(self.checksum(pseudo + part[34:]), 0xFFFF)
        # What a port takes may change.
        plain.sock.send(struct.pack("<II", OFFLOADS, CSUM | TSO4))
        self.until(lambda: self.port_status("plain")["offloads"] == ["csum", "tso4"], "the note is read")
        a.send(data, header=header)
        self.assertEqual(plain.receive(with_header=True), (header, data))

    @staticmethod
    def checksum(data):
        """RFC 1071."""
        data += b"\0" * (len(data) % 2)
        total = sum(struct.unpack(f">{len(data) // 2}H", data))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return total

    def test_full(self):
        """A port that takes nothing loses frames, which are counted; others go on."""
        self.start("--storm", "0")
        a, b, c = self.ports("a", "b", "c")
        big = frame(BROADCAST, mac(1), bytes(60000))
        for _ in range(100):
            a.send(big)
            self.assertEqual(b.receive(), big)
        dropped = self.port_status("c")["out"]["dropped"]["full"]
        self.assertEqual(dropped + len(c.take_all()), 100)
        self.assertGreater(dropped, 0)
        a.send(big)
        self.assertEqual(c.receive(), big)


class Rules(SwitchCase):
    """VLANs, isolation, storms, addresses."""

    def test_vlans(self):
        """Access ports of two VLANs do not meet; a trunk has both, with tags."""
        self.start("--vlan", "c=20")
        a, b, c = self.port("a", 1, vlan=10), self.port("b", 2, vlan=10), self.port("c", 3, vlan=10)
        d, trunk = self.port("d", 4), self.port("trunk", 5, trunk=True)
        a.send(frame(BROADCAST, mac(1), b"ten"))
        self.assertEqual(b.receive(), frame(BROADCAST, mac(1), b"ten"))
        self.assertEqual(trunk.receive(), frame(BROADCAST, mac(1), b"ten", vlan=10))
        self.nothing(a, c, d)
        trunk.send(frame(BROADCAST, mac(5), b"twenty", vlan=20))
        self.assertEqual(c.receive(), frame(BROADCAST, mac(5), b"twenty"))
        trunk.send(frame(BROADCAST, mac(5), b"own"))
        self.assertEqual(d.receive(), frame(BROADCAST, mac(5), b"own"))
        self.nothing(trunk, a, b, c)
        # Tags on access ports, and two tags anywhere, go nowhere.
        a.send(frame(BROADCAST, mac(1), vlan=20), frame(BROADCAST, mac(1), vlan=10))
        trunk.send(frame(BROADCAST, mac(5), struct.pack(">H", 20), vlan=1, kind=0x8100))
        self.nothing(a, b, c, d, trunk)
        self.nothing(trunk, a, b, c, d)
        self.assertEqual(self.port_status("a")["in"]["dropped"], {"vlan": 2})
        self.assertEqual(self.port_status("trunk")["in"]["dropped"], {"vlan": 1})
        # A priority alone is no VLAN.
        a.send(frame(BROADCAST, mac(1), b"urgent", vlan=7 << 13))
        self.assertEqual(b.receive(), frame(BROADCAST, mac(1), b"urgent"))
        self.assertEqual(trunk.receive(), frame(BROADCAST, mac(1), b"urgent", vlan=7 << 13 | 10))

    def test_isolation(self):
        """Isolated ports reach the others alone."""
        self.start("--isolate", "a", "--isolate=b")
        a, b, c = self.ports("a", "b", "c")
        a.send(frame(BROADCAST, mac(1)))
        c.receive()
        self.nothing(a, b)
        b.send(frame(mac(9), mac(2)))
        c.receive()
        a.send(frame(mac(2), mac(1)))
        self.nothing(a, b, c)
        self.assertEqual(self.port_status("a")["in"]["dropped"], {"isolated": 1})
        c.send(frame(mac(2), mac(3)), frame(BROADCAST, mac(3)))
        self.assertEqual((b.receive(), b.receive(), a.receive()),
                         (frame(mac(2), mac(3)), frame(BROADCAST, mac(3)), frame(BROADCAST, mac(3))))

    def test_isolate_all(self):
        """* is every port."""
        self.start("--isolate", "*")
        a, b = self.ports("a", "b")
        a.send(frame(BROADCAST, mac(1)))
        self.nothing(a, b)

    def test_own_mac(self):
        """A port that may use its own address alone."""
        self.start("--own-mac", "*")
        a, b = self.port("a", 1), self.port("b")
        a.send(frame(BROADCAST, mac(2)), frame(BROADCAST, mac(1), b"mine"))
        self.assertEqual(b.receive(), frame(BROADCAST, mac(1), b"mine"))
        b.send(frame(BROADCAST, mac(7), b"first"), frame(BROADCAST, mac(8)), frame(BROADCAST, mac(7), b"again"))
        self.assertEqual(a.receive(), frame(BROADCAST, mac(7), b"first"))
        self.assertEqual(a.receive(), frame(BROADCAST, mac(7), b"again"))
        self.assertEqual(self.port_status("a")["in"]["dropped"], {"spoofed": 1})
        self.assertEqual(self.port_status("b")["in"]["dropped"], {"spoofed": 1})

    def test_storm(self):
        """More than so many broadcasts a second go nowhere; frames to known addresses do."""
        self.start("--storm", "50")
        a, b = self.ports("a", "b")
        b.send(frame(BROADCAST, mac(2)))
        a.receive()
        a.send(*[frame(BROADCAST, mac(1), bytes([i])) for i in range(100)], *[frame(mac(2), mac(1))] * 100)
        self.settle(a)
        got = [data for _, data in b.take_all()]
        self.assertEqual(got.count(frame(mac(2), mac(1))), 100)
        dropped = self.port_status("a")["in"]["dropped"]["storm"]
        self.assertEqual(dropped, 200 - len(got))
        self.assertGreater(dropped, 0)

    def test_malformed(self):
        """Short frames, impossible sources and headers, bridges' own addresses."""
        self.start()
        a, b = self.ports("a", "b")
        a.send(b"", bytes(13), frame(BROADCAST, BROADCAST), frame(BROADCAST, bytes(6)))
        a.send(mac(2) + mac(1) + b"\x81\x00", mac(2) + mac(1) + b"\x81\x00\x00\x00\x08")
        for header in ((1, 0, 0, 0, 60, 0), (1, 0, 0, 0, 0, 0), (0, 1, 0, 100, 0, 0), (1, 5, 0, 100, 34, 16),
                       (1, 1, 0, 0, 34, 16), (1, 0, 0, 0, 65535, 65535)):
            a.send(frame(BROADCAST, mac(1)), header=struct.pack("<BBHHHH", *header))
        a.send(frame(bytes.fromhex("0180c2000000"), mac(1)), frame(bytes.fromhex("0180c200000f"), mac(1)))
        self.nothing(a, b)
        self.assertEqual(self.port_status("a")["in"]["dropped"], {"malformed": 12, "reserved": 2})
        a.send(frame(bytes.fromhex("0180c2000010"), mac(1)))
        b.receive()


class Life(SwitchCase):
    """Coming, going and misbehaving."""

    def test_refused(self):
        """Versions, names and addresses that cannot be."""
        self.start()
        self.port("a", 1)
        for message, words in (
                (hello(JOIN, "b", version=2), "version 2"),
                (hello(7, "b"), "kind 7"),
                (hello(JOIN, "b")[:-1], "55 bytes"),
                (hello(JOIN, "../b"), "name"),
                (hello(JOIN, ""), "name"),
                (hello(JOIN, "x" * 32), "name"),
                (hello(JOIN, "b", vlan=4095), "VLAN 4095"),
                (hello(JOIN, "b", address=BROADCAST), "group"),
                (hello(JOIN, "a"), "'a' already"),
                (hello(JOIN, "b", address=mac(1)), "'a' has the address 52:54:00:00:00:01"),
                (b"GET / HTTP/1.1\r\n", "no hello")):
            with connect(self.path) as sock, self.assertRaises(Refused) as refused:
                ask(sock, message)
            self.assertIn(words, refused.exception.args[1])
        self.assertEqual([p["name"] for p in self.status()["ports"]], ["a"])

    def test_silent(self):
        """Those who say nothing keep nobody out for long."""
        self.start()
        silent = [connect(self.path) for _ in range(20)]
        self.until(lambda: self.run_vireo("switch", "test", "--socket", self.path, "--status").returncode == 0,
                   "the switch answers")
        for sock in silent:
            sock.close()

    def test_again(self):
        """A port of the same name, as soon as the first has hung up."""
        self.start()
        for n in range(50):
            port = Port(self.path, "a", mac(1))
            port.send(frame(BROADCAST, mac(1), bytes([n])))
            port.close()

    def test_hostile_rings(self):
        """Who writes nonsense into its rings is cut off, with one line, and nobody else notices."""
        self.start()
        a, b = self.ports("a", "b")
        for name, spoil in (
                ("position", lambda p: p.out.set(PUT, 1 << 40)),
                ("back", lambda p: p.out.set(PUT, (1 << 64) - 16)),
                ("odd", lambda p: p.out.set(PUT, 8)),
                ("long", lambda p: (struct.pack_into("<I", p.memory, HEAD, 1 << 30), p.out.set(PUT, 4096))),
                ("taken", lambda p: (p.into.set(TAKEN, 1 << 40), [a.send(frame(BROADCAST, mac(1), bytes(60000)))
                                                                  for _ in range(80)]))):
            port = self.port(name, 9)
            spoil(port)
            if name != "taken":
                port.wake()
            self.assertIn(f"port {name} is cut off", self.process.stderr.readline().decode())
            self.until(lambda: select.select([port.sock], [], [], 0)[0] and self.hung_up(port), "it is cut off")
            port.close()
            b.take_all()
        a.send(frame(mac(2), mac(1), b"fine"))
        self.until(lambda: any(data[14:18] == b"fine" for _, data in b.take_all()), "others go on")

    @staticmethod
    def hung_up(port):
        """The end of the connection is reached; what is before it is read."""
        try:
            return port.sock.recv(100) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def test_hostile_notes(self):
        """So is who sends what is no note."""
        self.start()
        for n, note in enumerate((b"x", struct.pack("<II", 99, 0), bytes(4000))):
            port = self.port(f"p{n}")
            port.sock.send(note)
            self.assertIn(f"port p{n} is cut off".encode(), self.process.stderr.readline())

    def test_second(self):
        """A second switch of that name is refused; one that was killed leaves nothing in the way."""
        path = self.start()
        self.one_line(self.run_vireo("switch", "test", "--socket", path), 2, "test", path, "listens")
        self.process.kill()
        self.process.wait()
        self.assertTrue(path.exists())
        self.start()
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(harness.PATIENCE), 0)
        self.assertFalse(path.exists())
        self.one_line(self.run_vireo("switch", "test", "--socket", path, "--status"), 2, "no switch", path)

    def test_name(self):
        """By its name, in the user's own directory; others' directories are refused."""
        runtime = self.dir / "run"
        runtime.mkdir()
        env = dict(os.environ, XDG_RUNTIME_DIR=str(runtime))
        process = subprocess.Popen([harness.VIREO, "switch", "lan.1"], env=env, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertIn(str(runtime / "vireo" / "switch-lan.1"), process.stderr.readline().decode())
        self.assertEqual((runtime / "vireo").stat().st_mode & 0o777, 0o700)
        result = self.run_vireo("switch", "lan.1", "--status", env=env)
        self.assertEqual(json.loads(result.stdout)["name"], "lan.1")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(harness.PATIENCE), 0)
        (runtime / "vireo").chmod(0o777)
        self.one_line(self.run_vireo("switch", "lan.1", env=env), 2, runtime / "vireo", "alone")

    def test_usage(self):
        """Wrong use is one line."""
        for args, words in (([], "name"), (["a b"], "a b"), (["a", "b"], "'b'"), (["-x"], "-x"),
                            (["a", "--storm", "many"], "many"), (["a", "--vlan", "x"], "PORT="),
                            (["a", "--vlan", "x=0"], "4094"), (["a", "--vlan", "x=4095"], "4094"),
                            (["a", "--isolate", "?"], "?"), (["a", "--capture", "*=file"], "*"),
                            (["a", "--capture", "x"], "PORT=VALUE"), (["a", "--uplink", "nothing"], "nothing"),
                            (["a", "--socket", "x" * 200], "xxx"), (["a", "--mac-age", "0"], "0")):
            self.one_line(self.run_vireo("switch", *args), 2, words)
        self.one_line(self.run_vireo("switch", self.dir / "s", "--capture", f"x={self.dir}/none/file"), 2, "none/file")
        self.one_line(self.run_vireo("switch", self.dir / "none" / "s"), 2, "none/s")

    def test_small(self):
        """A switch takes little memory, and none of the processor while nothing comes."""
        self.start()
        ports = self.ports(*[f"p{i}" for i in range(20)])
        for port in ports:
            port.send(frame(BROADCAST, mac(1), bytes(1000)))
        self.settle(ports[-1])
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        if "asan" not in Path(f"/proc/{self.process.pid}/maps").read_text():
            self.assertLess(int(re.search(r"RssAnon:\s+(\d+)", status)[1]), 4 << 10)
        ticks = self.ticks()
        time.sleep(0.5)
        self.assertLessEqual(self.ticks() - ticks, 1)

    def ticks(self):
        """The processor's time of the switch."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])


class Capture(SwitchCase):
    """--capture."""

    def test_capture(self):
        """What a port sends and is sent, whole, in the order of time, while the port comes and goes."""
        path = self.dir / "b.pcap"
        self.start("--capture", f"b={path}")
        a, b, _ = self.ports("a", "b", "c")
        sent = [frame(BROADCAST, mac(1), b"one"), frame(mac(1), mac(2), b"two" * 500), frame(mac(2), mac(1), b"three")]
        for port, data in zip((a, b, a), sent):
            port.send(data)
            self.settle(port)
        b.close()
        b = self.port("b", 2)
        b.send(sent[1])
        self.settle(b)
        data = path.read_bytes()
        self.assertEqual(struct.unpack("<IHHiIII", data[:24]), (0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        frames, last, at = [], 0, 24
        while at < len(data):
            seconds, ns, kept, length = struct.unpack_from("<IIII", data, at)
            self.assertEqual(kept, length)
            self.assertGreaterEqual(seconds * 10**9 + ns, last)
            last = seconds * 10**9 + ns
            frames.append(data[at + 16:at + 16 + kept])
            at += 16 + kept
        self.assertEqual(frames, sent + [sent[1]])


if __name__ == "__main__":
    harness.main()
