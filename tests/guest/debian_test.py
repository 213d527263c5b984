"""
A whole Debian from its disk image: systemd, ssh, apt, reboot and power-off, and the file system afterwards.

usage: debian_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine; qemu: on QEMU's TCG, in vireo's place.
"""

import hashlib
import http.server
import os
import subprocess
import threading
import unittest
from functools import partial

import debian
import harness

HOST = "10.0.2.2"  # the host's loopback, to a guest behind user-mode NAT
PACKAGE = "vireo-test"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a directory, without a line for each."""

    def log_message(self, *_):
        pass


def build_package(directory, payload):
    """A Debian package with one big file, in the directory, with the index that apt asks for."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share" / PACKAGE).mkdir(parents=True)
    (tree / "usr/share" / PACKAGE / "payload").write_bytes(payload)
    control = f"Package: {PACKAGE}\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n"
    (tree / "DEBIAN/control").write_text(control, encoding="ascii")
    archive = directory / "archive"
    archive.mkdir()
    package = archive / f"{PACKAGE}_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, package], check=True, stdout=subprocess.DEVNULL)
    data = package.read_bytes()
    index = f"{control}Filename: ./{package.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    (archive / "Packages").write_text(index, encoding="ascii")
    return archive


@unittest.skipIf(debian.missing(), f"no {debian.missing()} on this host")
class Server(harness.Case):
    """What one does with a server."""

    @classmethod
    def setUpClass(cls):
        debian.prepare()

    def serve(self, directory):
        """The port of 127.0.0.1 at which the directory's files are to be had."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(directory)))
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def running(self, guest):
        """systemd is done, and has no failed unit."""
        failed = guest.ask("systemctl is-system-running --wait >/dev/null; systemctl --failed --plain --no-legend")
        self.assertEqual(failed, "")
        self.assertEqual(guest.ask("systemctl is-system-running").strip(), "running")

    def test_use(self):
        """Console, ssh, a package from the host's archive, power-off by console."""
        payload = os.urandom(3 << 20)
        port = self.serve(build_package(self.dir, payload))
        guest = debian.Debian(self)
        guest.log_in()
        guest.terminal.type("echo $((6 * 7))$(hostname)\n")
        guest.terminal.expect("42debian", debian.PATIENCE)
        guest.wait_for_ssh()
        self.running(guest)
        self.assertEqual(guest.ask("findmnt -no SOURCE,FSTYPE /").split(), ["/dev/vda", "ext4"])
        guest.ask(f"echo 'deb [trusted=yes] http://{HOST}:{port} ./' >/etc/apt/sources.list && apt-get -q update && "
                  f"DEBIAN_FRONTEND=noninteractive apt-get -q -y install {PACKAGE}", debian.PATIENCE * 3)
        found = guest.ask(f"dpkg-query -W {PACKAGE}; sha256sum </usr/share/{PACKAGE}/payload").split()
        self.assertEqual(found[:3], [PACKAGE, "1.0", hashlib.sha256(payload).hexdigest()])
        guest.terminal.type("poweroff\n")
        self.assertEqual(guest.end(), 0, guest.terminal.text[-2000:])
        debian.check_disk(guest.disk)

    def test_reboot(self):
        """What was written before a reboot is there after it, nothing failed, and all is unmounted in the end."""
        guest = debian.Debian(self)
        guest.terminal.expect(debian.LOGIN, debian.PATIENCE)
        guest.wait_for_ssh()
        sums = guest.ask("head -c 20M /dev/urandom >/var/tmp/big && sha256sum /var/tmp/big; cat /proc/sys/kernel/random/boot_id")
        guest.ssh("systemctl reboot")
        guest.terminal.expect(debian.LOGIN, debian.PATIENCE)
        guest.wait_for_ssh()
        self.running(guest)
        again = guest.ask("sha256sum /var/tmp/big; cat /proc/sys/kernel/random/boot_id")
        self.assertEqual(sums.splitlines()[0], again.splitlines()[0])
        self.assertNotEqual(sums.splitlines()[1], again.splitlines()[1])
        guest.ssh("systemctl poweroff")
        self.assertEqual(guest.end(), 0, guest.terminal.text[-2000:])
        debian.check_disk(guest.disk)


if __name__ == "__main__":
    harness.main()
