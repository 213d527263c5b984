"""The control socket of a running VM, by `vireo ctl` and by hand: answers, errors that lose nothing, and what commands do."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position


class Control(harness.Case):
    """A kernel that counts, and whoever commands it."""

    def setUp(self):
        super().setUp()
        self.path = self.dir / "control"
        self.connections = []
        # The interpreter counts each instruction.
        self.vm = harness.Terminal("run", "--engine", "interp", "--kernel", self.kernel("count"), "--memory", "8M",
                                   "--control", f"unix:{self.path}")
        self.addCleanup(self.vm.close)
        self.vm.expect("ready")

    def ctl(self, *words):
        """What `vireo ctl` prints as JSON, or None; it must succeed."""
        result = self.run_vireo("ctl", self.path, *words)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return json.loads(result.stdout) if result.stdout else None

    def connect(self):
        """A connection of our own."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(harness.PATIENCE)
        connection.connect(str(self.path))
        self.addCleanup(connection.close)
        self.connections.append(connection)
        return connection.makefile("rwb", buffering=0)

    def ask(self, stream, line):
        """The answer to one line."""
        stream.write(line.encode() + b"\n")
        return json.loads(stream.readline())

    def instructions(self):
        """How many the guest has executed."""
        return self.ctl("stats")["instructions"]

    def test_status(self):
        """Who runs, and what is attached."""
        self.assertEqual(self.ctl("status")["state"], "running")
        self.assertEqual([device["kind"] for device in self.ctl("list")].count("rng"), 1)
        self.assertIn("attach KIND SPEC", self.ctl("help"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_pause(self):
        """A paused guest does not move, and goes on."""
        self.ctl("pause")
        self.ctl("pause")
        self.assertEqual(self.ctl("status")["state"], "paused")
        before = self.instructions()
        self.assertEqual(self.instructions(), before)
        self.ctl("resume")
        self.ctl("resume")
        self.assertEqual(self.ctl("status")["state"], "running")
        self.vm.until(lambda: self.instructions() > before, "the guest goes on")

    def test_reset(self):
        """The reset button, also of a paused VM."""
        self.ctl("reset")
        self.vm.expect("ready")
        self.ctl("pause")
        self.ctl("reset")
        self.vm.expect("ready")

    def test_quit(self):
        """The end, and nothing stays behind."""
        self.ctl("quit")
        self.assertEqual(self.vm.wait(), 0)
        self.assertFalse(self.path.exists())

    def test_attach(self):
        """A device that comes is listed; a slot and an id are taken once."""
        self.assertEqual(self.ctl("attach", "rng", "id=dice,bps=1K")["id"], "dice")
        self.assertEqual({device["id"] for device in self.ctl("list")} & {"dice"}, {"dice"})
        result = self.run_vireo("ctl", self.path, "attach", "rng", "id=dice")
        self.one_line(result, 1, "'dice'", "taken")
        for _ in range(30 - len(self.ctl("list"))):
            self.ctl("attach", "rng", "bps=1K")
        self.one_line(self.run_vireo("ctl", self.path, "attach", "rng", "bps=1K"), 1, "slot")
        self.assertEqual(len(self.ctl("list")), 30)

    def test_wrong_words(self):
        """One line each."""
        for words, status, expected in [
            (["frobnicate"], 1, ["'frobnicate'", "accepted are", "status"]),
            (["status", "now"], 1, ["status with 1 arguments", "status alone"]),
            (["attach", "rng"], 1, ["attach KIND SPEC"]),
            (["attach", "piano", "x"], 1, ["'piano'", "rng"]),
            (["attach", "rng", "colour=red"], 1, ["'colour=red'", "bps="]),
            (["detach", "nothing"], 1, ["'nothing'", "rng0"]),
        ]:
            with self.subTest(words=words):
                self.one_line(self.run_vireo("ctl", self.path, *words), status, *expected)
        self.one_line(self.run_vireo("ctl"), 2, "PATH COMMAND")
        self.one_line(self.run_vireo("ctl", self.path), 2, "PATH COMMAND")
        self.one_line(self.run_vireo("ctl", self.dir / "absent", "status"), 2, f"'{self.dir / 'absent'}'", "No such file")
        self.one_line(self.run_vireo("ctl", "x" * 200, "status"), 2, "xxx", "bytes")

    def test_malformed_lines(self):
        """An error each, and the connection goes on."""
        stream = self.connect()
        for line in ["{", "[]", "7", '"status"', "{}", '{"command": 7}', '{"command": "status", "arguments": 7}',
                     '{"command": "status", "colour": "red"}', '{"command": "status", "command": "status"}',
                     '{"command": "detach", "arguments": [7]}', '{"command": "\\ud800"}', "\x01", "\xff" * 10]:
            with self.subTest(line=line):
                answer = self.ask(stream, line)
                self.assertFalse(answer["ok"])
                self.assertTrue(answer["error"])
        self.assertEqual(self.ask(stream, '{"command": "status", "id": [1, "x"]}')["id"], [1, "x"])

    def test_long_line(self):
        """More than a line may have ends the connection, and nothing else."""
        stream = self.connect()
        stream.write(b"x" * 65536)
        self.assertIn("too long", json.loads(stream.readline())["error"])
        self.assertEqual(stream.readline(), b"")
        self.assertEqual(self.ctl("status")["state"], "running")

    def test_many_lines(self):
        """Answers come in order, also in pieces and many at once."""
        stream = self.connect()
        text = b"".join(b'{"command":"status","id":%d}\n' % n for n in range(200))
        for at in range(0, len(text), 999):
            stream.write(text[at:at + 999])
        self.assertEqual([json.loads(stream.readline())["id"] for _ in range(200)], list(range(200)))

    def test_many_clients(self):
        """Whoever is too many waits until another goes."""
        streams = [self.connect() for _ in range(16)]
        for stream in streams:
            self.assertTrue(self.ask(stream, '{"command": "status"}')["ok"])
        late = subprocess.Popen([harness.VIREO, "ctl", self.path, "status"], stdout=subprocess.PIPE)
        self.addCleanup(late.stdout.close)
        for stream in streams:
            stream.close()
        for connection in self.connections:
            connection.close()
        self.assertEqual(json.loads(late.communicate(timeout=harness.PATIENCE)[0])["state"], "running")

    def test_client_that_reads_nothing(self):
        """It is let go; the others are served."""
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(harness.PATIENCE)
        connection.connect(str(self.path))
        try:
            for _ in range(20000):
                connection.sendall(b'{"command":"help"}\n' * 50)
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.assertEqual(self.ctl("status")["state"], "running")

    def test_path_in_use(self):
        """A second VM is refused the path."""
        result = self.run_vireo("run", "--kernel", self.kernel("idle"), "--control", f"unix:{self.path}")
        self.one_line(result, 2, "--control", f"'{self.path}'")


if __name__ == "__main__":
    harness.main()
