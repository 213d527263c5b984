"""A machine's state saved and loaded: by signal, key and socket; what contradicts it; files that are damaged, or that there is no room for."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness

FLIPS = int(os.environ.get("VIREO_TEST_FLIPS", "60"))
SMALL = ("--engine", "interp", "--memory", "4M", "--bare")


class Saved(harness.Case):
    """Helpers."""

    def setUp(self):
        super().setUp()
        self.state = self.dir / "state"
        self.socket = self.dir / "socket"

    def start(self, *args):
        """A vireo on a terminal."""
        terminal = harness.Terminal("run", *args)
        self.addCleanup(terminal.close)
        return terminal

    def ctl(self, *words):
        """What `vireo ctl` says."""
        return self.run_vireo("ctl", self.socket, *words)

    def ends_saved(self, terminal):
        """It says so and ends well, on a terminal as it was."""
        self.assertEqual(terminal.wait(), 0, terminal.text)
        terminal.expect(f"vireo: the VM's state is saved to '{self.state}'")
        self.assertEqual(terminal.modes(), terminal.before)

    def save(self, kernel="echo", *args):
        """A state of that kernel's."""
        terminal = self.start("--kernel", self.kernel(kernel), "--save", self.state, *(args or SMALL))
        terminal.expect("ready")
        terminal.process.send_signal(signal.SIGUSR1)
        self.ends_saved(terminal)


class Ways(Saved):
    """How a state is saved, and that it goes on."""

    def goes_on(self, *args):
        """The echo kernel still answers."""
        terminal = self.start("--load", self.state, *args)
        terminal.until(terminal.is_raw, "vireo has the terminal")
        terminal.type("hello")
        terminal.expect("hello")
        return terminal

    def test_signal(self):
        self.save()
        self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o600)
        self.assertEqual(list(self.dir.glob(".*")), [])
        for engine in "bt", "interp":
            terminal = self.goes_on("--engine", engine, "--save", self.state)  # in the place of what it was loaded from
            terminal.process.send_signal(signal.SIGUSR1)
            self.ends_saved(terminal)

    def test_key(self):
        terminal = self.start("--kernel", self.kernel("echo"), "--save", self.state, *SMALL)
        terminal.expect("ready")
        terminal.type("\x01s")
        self.ends_saved(terminal)
        terminal = self.goes_on()
        terminal.type("\x01s")
        terminal.expect("no --save")
        terminal.type("again")
        terminal.expect("again")

    def test_socket(self):
        terminal = self.start("--kernel", self.kernel("echo"), "--control", f"unix:{self.socket}", *SMALL)
        terminal.expect("ready")
        self.one_line(self.ctl("save", self.dir / "absent" / "state"), 1, "absent")
        self.one_line(self.ctl("save", "/dev/null"), 1, "/dev/null")
        terminal.type("still")
        terminal.expect("still")
        self.assertEqual(self.ctl("pause").returncode, 0)
        self.one_line(self.ctl("save", self.dir / "absent" / "state"), 1, "absent")
        self.assertEqual(json.loads(self.ctl("status").stdout)["state"], "paused")
        self.ctl("save", self.state)
        self.ends_saved(terminal)
        self.goes_on()

    def test_end_while_saving(self):
        terminal = self.start("--kernel", self.kernel("count"), "--save", self.state, *SMALL)
        terminal.expect("ready")
        terminal.process.send_signal(signal.SIGSTOP)
        terminal.process.send_signal(signal.SIGUSR1)
        terminal.process.send_signal(signal.SIGTERM)
        terminal.process.send_signal(signal.SIGCONT)
        self.assertEqual(terminal.wait(), -signal.SIGTERM)
        self.assertFalse(self.state.exists())

    def test_reset(self):
        self.save("echo")
        terminal = self.goes_on("--control", f"unix:{self.socket}")
        self.ctl("reset")
        self.assertEqual(terminal.wait(), 3)
        terminal.expect("without --kernel")
        terminal = self.goes_on("--control", f"unix:{self.socket}", "--kernel", self.kernel("echo"))
        self.assertEqual(self.ctl("reset").returncode, 0)
        terminal.expect("ready")

    def test_no_room(self):
        """A file system that is full: the guest goes on, and no file is there. In a mount namespace of its own."""
        script = self.dir / "script"
        script.write_text(f"""mount -t tmpfs -o size=16k none {self.dir / 'mnt'} || exit 77
exec {harness.VIREO} run --engine interp --memory 4M --kernel {self.kernel('echo')} --save {self.dir / 'mnt' / 'state'}
""")
        (self.dir / "mnt").mkdir()
        if subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode:
            self.skipTest("no user namespaces")
        terminal = harness.Terminal(command=["unshare", "-Urm", "sh", script])
        self.addCleanup(terminal.close)
        terminal.expect("ready")
        for _ in range(2):
            terminal.type("\x01s")
            terminal.expect("No space left on device")
            terminal.type("still")
            terminal.expect("still")


class Refused(Saved):
    """One line for each thing that is wrong."""

    def test_options(self):
        disk = self.dir / "disk.img"
        disk.write_bytes(bytes(1 << 20))
        other = self.dir / "other.img"
        other.write_bytes(bytes(2 << 20))
        self.save("echo", "--engine", "interp", "--memory", "4M", "--cpus", "2", "--disk", f"{disk},id=data", "--net", "user")
        load = ("run", "--load", self.state)
        good = ("--disk", f"{disk},id=data", "--net", "user")
        for args, words in (
                (("--memory", "8M", *good), ("--memory", "4194304")),
                (("--cpus", "1", *good), ("--cpus 1", "2")),
                (("--debug-exit", *good), ("--debug-exit",)),
                (("--initrd", disk, *good), ("--initrd", "--kernel")),
                (("--net", "user"), ("disk", "'data'", "--disk")),
                (good[:2], ("net", "'net0'", "--net")),
                (("--disk", disk, "--net", "user"), ("disk 'disk0'", "'data'", "net0")),
                ((*good, "--net", "user"), ("'net1'", "'net0'")),
                (("--disk", f"{other},id=data", "--net", "user"), ("data", "1048576", "2097152")),
                (("--disk", f"{disk},id=data,readonly", "--net", "user"), ("data", "writable", "read-only")),
                (("--bare", *good), ("balloon",)),
        ):
            with self.subTest(args=args):
                result = self.run_vireo(*load, *args)
                self.one_line(result, result.returncode, *words)
                self.assertIn(result.returncode, (1, 2))
        result = self.run_vireo(*load, *good, "--timeout", "0.2")
        self.assertEqual(result.returncode, 4, result.stderr)

    def test_no_state(self):
        self.one_line(self.run_vireo("run", "--load", self.dir / "absent"), 2, "absent", "No such file")
        for content in b"", b"vireo-v", bytes(1000):
            self.state.write_bytes(content)
            self.one_line(self.run_vireo("run", "--load", self.state), 2, self.state)
        self.one_line(self.run_vireo("run", "--kernel", self.kernel("idle"), "--save", self.dir / "no" / "file"), 2, "no/file")
        self.one_line(self.run_vireo("run", "--kernel", self.kernel("idle"), "--save", "/dev/null"), 2, "/dev/null")

    def test_share(self):
        """What a back end alone knows is not lost in silence."""
        share = self.dir / "share"
        share.mkdir()
        probe = self.run_vireo("run", "--kernel", self.kernel("idle"), "--share", f"{share},tag=x", "--timeout", "0.1")
        if probe.returncode != 4:
            self.skipTest("no virtiofsd")
        terminal = self.start("--kernel", self.kernel("echo"), "--share", f"{share},tag=x", "--save", self.state, *SMALL[:4])
        terminal.expect("ready")
        terminal.type("\x01s")
        terminal.expect("share0")
        terminal.type("still")
        terminal.expect("still")

    def test_damaged(self):
        """VIREO_TEST_FLIPS bits, one at a time."""
        self.save()
        good = self.state.read_bytes()
        chance = random.Random(1)
        for i in range(FLIPS):
            bad = bytearray(good)
            bit = chance.randrange(8 * (len(good) if i % 2 else 512))
            bad[bit // 8] ^= 1 << bit % 8
            self.state.write_bytes(bad)
            result = self.run_vireo("run", "--load", self.state, "--console", "none", "--timeout", "30")
            self.one_line(result, 2, self.state)
        self.state.write_bytes(good[:-1])
        self.one_line(self.run_vireo("run", "--load", self.state), 2, self.state)


if __name__ == "__main__":
    harness.main()
