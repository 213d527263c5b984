"""
vsock between a guest and host programs: who connects to whom, many at once, bytes intact, ends clean.

usage: vsock_test.py VIREO VSOCK [TEST...]; VSOCK is the guest's end (vsock/), with VIREO_TEST_ENGINE=NAME, on that engine
"""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import guest
import harness

VSOCK = Path(sys.argv.pop(2)).resolve()
CID = 42


def pattern(size):
    """Bytes that tell their place, as the guest's program makes them."""
    return bytes((at * 7 + at // 251) & 0xFF for at in range(size))


def echo(connection):
    """Gives a connection its bytes back, until it ends."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


class Vsock(harness.Case):
    """A guest with its program, and the host's end."""

    def path(self, port=None):
        """The host's socket, or the one of a port."""
        return str(self.dir / "vsock") + ("" if port is None else f"_{port}")

    def listen(self, port, serve):
        """Serves every connection that the guest makes to the port."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path(port))
        listener.listen(8)
        self.addCleanup(listener.close)

        def accept():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()

    def connect(self, port):
        """A connection to the guest's port."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(harness.PATIENCE)
        connection.connect(self.path())
        connection.sendall(f"CONNECT {port}\n".encode())
        line = b""
        while not line.endswith(b"\n"):
            byte = connection.recv(1)
            if not byte:
                connection.close()
                return None
            line += byte
        self.assertRegex(line.decode(), r"^OK \d+\n$")
        return connection

    def arguments(self, script, cpus=1):
        """What starts the guest."""
        text = f"#!/bin/busybox sh\nset -e\n{script}\n{guest.COMPLAINTS} && exit 1; exit 0\n".encode()
        return guest.arguments(self.dir, "/test/run", {"test/vsock": VSOCK.read_bytes(), "test/run": text}, cpus=cpus,
                               options=["--vsock", f"cid={CID},unix={self.path()}", "--timeout", guest.PATIENCE])

    def test_guest_connects(self):
        """To programs of the host: one after the other, large, at once, and where nobody is."""
        self.listen(7000, echo)
        result = self.run_vireo(
            *self.arguments("/test/vsock cid\n/test/vsock refused 7001\n/test/vsock ask 7000 1 20\n/test/vsock ask 7000 3000000 2\n"
                            "for i in 1 2 3 4 5 6 7 8; do /test/vsock ask 7000 100000 3 & done\n"
                            "for i in 1 2 3 4 5 6 7 8; do wait %$i; done\n", cpus=2), timeout=guest.PATIENCE + 60)
        text = result.stdout.decode(errors="replace").replace("\r", "")
        self.assertIn("vireo.script: exit status 0", text, text + result.stderr.decode())
        self.assertIn(f"cid {CID}\n", text)
        self.assertEqual(text.count("asked 3 times"), 8, text)
        self.assertFalse(Path(self.path()).exists())

    def test_host_connects(self):
        """To the guest's program, several times at once; where nobody listens, the socket is closed."""
        process = subprocess.Popen([harness.VIREO, *map(str, self.arguments("/test/vsock echo 52 12", cpus=2))], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        while (line := process.stdout.readline()) and not line.startswith(b"listening"):
            pass
        self.assertTrue(line, "the guest does not listen")
        self.assertIsNone(self.connect(53))
        data = pattern(400000)
        results = []

        def ask():
            connection = self.connect(52)
            sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
            sender.start()
            got = b""
            while chunk := connection.recv(65536):
                got += chunk
            sender.join()
            connection.close()
            results.append(got == data)

        for _ in range(3):
            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(results, [True] * 12)
        text = process.stdout.read().decode(errors="replace")
        process.wait(harness.PATIENCE)
        self.assertTrue(re.search("vireo.script: exit status 0", text), text)

    def test_refuses(self):
        """A path that is taken or too long, and an address that no guest has: one line."""
        kernel = self.kernel("idle")
        taken = self.dir / "taken"
        taken.touch()
        for spec, word in ((f"unix={taken}", taken), ("unix=/" + "a" * 96, "97 bytes"), (f"cid=2,unix={self.path()}", "cid"),
                           ("cid=5", "unix=PATH"), (f"unix={self.dir}/absent/v", "absent")):
            result = self.run_vireo("run", "--kernel", kernel, "--vsock", spec)
            self.one_line(result, result.returncode, word)
            self.assertNotEqual(result.returncode, 0)


if __name__ == "__main__":
    harness.main()
