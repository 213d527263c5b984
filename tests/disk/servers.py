"""
Servers of disks, for tests: each on a port of its own on loopback, with its files in the test's directory, killed and started again as often as one likes.
"""

import os
import socket
import struct
import subprocess
import time

import harness


def free_port():
    """A TCP port that nobody has, as far as one can tell."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


VOLATILE = None  # the library that gives a server a cache to lose


class Server:
    """One disk of 16 MiB, in `image`."""

    size = 16 << 20
    missing = None  # why it cannot run here
    own_cache = False  # that is lost when it is killed

    def __init__(self, directory):
        self.dir = directory
        self.port = free_port()
        self.image = directory / "served.raw"
        self.process = None
        self.lost = 0  # writes
        self.environment = dict(os.environ)
        self.resize(self.size)

    def resize(self, size):
        """While it does not run: another size for the disk."""
        with open(self.image, "ab") as file:
            file.truncate(size)

    def command(self):
        """What runs in the foreground."""
        raise NotImplementedError

    def set_up(self):
        """What is left to do when it listens."""

    def url(self, **_):
        """What vireo calls the disk."""
        raise NotImplementedError

    def address(self):
        """Where it listens."""
        return "127.0.0.1", self.port

    def start(self):
        """Returns when it serves."""
        with open(self.dir / "server.log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self.command()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.dir, env=self.environment)
        until = time.monotonic() + harness.PATIENCE
        while True:
            with socket.socket(socket.AF_INET if isinstance(self.address(), tuple) else socket.AF_UNIX) as sock:
                if sock.connect_ex(self.address()) == 0:
                    break
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{self.command()[0]} does not serve: {(self.dir / 'server.log').read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        self.set_up()

    def revive(self):
        """Starts it again where it has ended by itself."""
        if self.process.poll() is not None:
            self.kill()
            self.start()

    def signal(self, number):
        """A signal, and no more."""
        self.process.send_signal(number)

    def kill(self):
        """As a power cut has it: what was written since the last sync is lost."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.lose()

    def lose(self):
        """Puts back what volatile.c's journal has, the latest first."""
        journal = self.dir / "journal"
        data, at, records = journal.read_bytes() if journal.exists() else b"", 0, []
        while len(data) - at >= 24:
            offset, length, size = struct.unpack_from("<QQQ", data, at)
            if len(data) - at - 24 < length:
                break  # the server was killed before the write itself
            records.append((offset, data[at + 24:at + 24 + length], size))
            at += 24 + length
        with open(self.image, "r+b") as file:
            for offset, old, size in reversed(records):
                file.seek(offset)
                file.write(old)
                file.truncate(size)
        journal.unlink(missing_ok=True)
        self.lost += len(records)

    def make_volatile(self):
        """Has the server lose what was not synced when it is killed."""
        self.environment |= {"LD_PRELOAD": str(VOLATILE), "VOLATILE_FILE": str(self.image), "VOLATILE_JOURNAL": str(self.dir / "journal")}


class Nbd(Server):
    """nbdkit, with a cache that is lost when it is killed."""

    own_cache = True
    filters = ["cache"]
    arguments = ["cache=writeback"]

    def command(self):
        return ["nbdkit", "-f", *self.listen(), "-e", "disk", *(f"--filter={name}" for name in ["exportname", *self.filters]),
                "file", self.image, "exportname=disk", "exportname-strict=true", *self.arguments]

    def listen(self):
        """The arguments that say where."""
        return "-p", self.port, "-i", "127.0.0.1"

    def url(self, export="disk", port=None, **_):
        return f"nbd://127.0.0.1:{port or self.port}/{export},format=raw"


class NbdUnix(Nbd):
    """The same on a Unix socket."""

    def address(self):
        return str(self.dir / "socket")

    def listen(self):
        (self.dir / "socket").unlink(missing_ok=True)  # of the one that was killed
        return "-U", self.address()

    def url(self, export="disk", **_):
        return f"nbd+unix:///{export}?socket={self.address()},format=raw"


class NbdTls(Nbd):
    """The same over TLS, with keys that both sides have."""

    def __init__(self, directory):
        super().__init__(directory)
        for name, key in (("keys", "0123456789abcdef" * 4), ("wrong", "00" * 32)):
            (directory / name).write_text(f"alice:{key}\n", encoding="ascii")

    def listen(self):
        return *super().listen(), "--tls=require", f"--tls-psk={self.dir / 'keys'}"

    def url(self, export="disk", port=None, keys="keys", **_):
        return f"nbds://alice@127.0.0.1:{port or self.port}/{export}?tls-psk-file={self.dir / keys},format=raw"


class Iscsi(Server):
    """tgtd, with a port, a control socket and a lock of its own."""

    target = "iqn.2026-11.invalid.vireo:test"
    missing = None if os.geteuid() == 0 else "tgtd wants to be root"
    backing = "rdwr"

    def __init__(self, directory):
        super().__init__(directory)
        self.number = 1  # of the control socket, beside its path
        self.environment["TGT_IPC_SOCKET"] = str(directory / "ipc")
        self.make_volatile()

    def command(self):
        return ["tgtd", "-f", "-C", self.number, "--iscsi", f"portal=127.0.0.1:{self.port}"]

    def control(self, *words):
        """tgtadm; again until tgtd has its socket."""
        until = time.monotonic() + harness.PATIENCE
        while True:
            result = subprocess.run(["tgtadm", "-C", str(self.number), "--lld", "iscsi", *map(str, words)],
                                    env=dict(self.environment, LD_PRELOAD=""),
                                    capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return
            if time.monotonic() > until or self.process.poll() is not None:
                raise AssertionError(result.stderr)
            time.sleep(0.05)

    user = None  # a name, and its password

    def set_up(self):
        self.control("--op", "new", "--mode", "target", "--tid", 1, "-T", self.target)
        self.control("--op", "new", "--mode", "logicalunit", "--tid", 1, "--lun", 1, "-b", self.image)
        self.control("--op", "update", "--mode", "logicalunit", "--tid", 1, "--lun", 1, "--params", "thin_provisioning=1")
        if self.user:
            self.control("--op", "new", "--mode", "account", "--user", self.user[0], "--password", self.user[1])
            self.control("--op", "bind", "--mode", "account", "--tid", 1, "--user", self.user[0])
        self.control("--op", "bind", "--mode", "target", "--tid", 1, "-I", "ALL")

    def url(self, port=None, target=None, lun=1, user="", **_):
        return f"iscsi://{user and user + '@'}127.0.0.1:{port or self.port}/{target or self.target}/{lun},format=raw"


class Nfs(Server):
    """nfs-ganesha, version 4 alone, which needs no port mapper."""

    grace = 2
    missing = None if os.geteuid() == 0 else "ganesha opens files by handle, which wants root"

    def __init__(self, directory):
        self.export = directory / "export"
        self.export.mkdir()
        super().__init__(directory)
        self.image = self.export / "served.raw"
        (directory / "served.raw").rename(self.image)
        (directory / "recovery").mkdir()
        self.make_volatile()

    def command(self):
        config = self.dir / "ganesha.conf"
        config.write_text(f"""
            NFS_CORE_PARAM {{ NFS_Port = {self.port}; Enable_NLM = false; Enable_RQUOTA = false; Protocols = 4; Bind_addr = 127.0.0.1;
                              Enable_UDP = false; }}
            NFSV4 {{ Grace_Period = {self.grace}; Lease_Lifetime = {self.grace}; RecoveryRoot = "{self.dir}/recovery"; }}
            EXPORT {{ Export_Id = 1; Path = "{self.export}"; Pseudo = "/export"; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
                      Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }} }}""")
        return ["ganesha.nfsd", "-F", "-f", config, "-p", self.dir / "pid", "-L", self.dir / "ganesha.log"]

    def url(self, port=None, path="/export/served.raw", **_):
        return f"nfs://127.0.0.1:{port or self.port}{path},format=raw"
