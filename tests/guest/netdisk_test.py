"""
A real guest on disks that servers have, which are killed under it.

usage: netdisk_test.py VIREO VOLATILE [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "disk"))
VOLATILE = Path(sys.argv.pop(2)).resolve()
import guest  # pylint: disable=wrong-import-position
import harness  # pylint: disable=wrong-import-position
import servers  # pylint: disable=wrong-import-position

servers.VOLATILE = VOLATILE
STEP = 64 << 10
N = 24

# Each step is flushed, and then told; between the flushes other writes are under way.
SCRIPT = f"""#!/bin/sh
i=0
while [ $i -lt {N} ]; do
    dd if=/dev/urandom of=/tmp/block bs=64k count=1 2>/dev/null
    dd if=/tmp/block of=/dev/vda bs=64k seek=$((64 + i)) 2>/dev/null &
    dd if=/tmp/block of=/dev/vda bs=64k seek=$i conv=fsync 2>/dev/null || exit 1
    wait
    echo flushed $i $(md5sum </tmp/block)
    i=$((i + 1))
done
"""


class Cases:
    """What holds for each protocol."""

    kind = None

    def setUp(self):
        super().setUp()
        if self.kind.missing:
            self.skipTest(self.kind.missing)
        self.server = self.kind(self.dir)
        self.addCleanup(self.server.kill)
        self.server.start()
        self.sums = {}

    def boot(self, *keys):
        """The guest, on a terminal."""
        terminal = harness.Terminal(*guest.arguments(self.dir, "script", {"bin/script": SCRIPT.encode()}), "--timeout", guest.PATIENCE,
                                    "--control", f"unix:{self.dir}/control", "--disk", ",".join([self.server.url(), *keys]))
        self.addCleanup(terminal.close)
        return terminal

    def follow(self, terminal, last):
        """What the guest has flushed, up to a step."""
        for i in range(len(self.sums), last + 1):
            self.sums[i] = terminal.expect(rf"flushed {i} ([0-9a-f]{{32}})", guest.PATIENCE)[1]

    def finish(self, terminal):
        """It flushes the rest and powers off; and all is there, also when the server is killed then."""
        self.follow(terminal, N - 1)
        self.assertEqual(terminal.wait(guest.PATIENCE), 0, terminal.text)
        self.server.kill()
        data = self.server.image.read_bytes()
        for i, wanted in self.sums.items():
            self.assertEqual(hashlib.md5(data[i * STEP:(i + 1) * STEP]).hexdigest(), wanted, f"step {i}")

    def test_killed(self):
        """The server is killed and started again while the guest writes: it sees nothing of it, and what it flushed is there."""
        terminal = self.boot()
        for i in (4, 9, 14):
            self.follow(terminal, i)
            self.server.kill()
            self.server.start()
        self.finish(terminal)

    def test_gone(self):
        """It stays away: the VM pauses, and goes on when the server is back."""
        terminal = self.boot("timeout=1", "on-error=pause")
        self.follow(terminal, 4)
        self.server.kill()

        def state():
            result = self.run_vireo("ctl", self.dir / "control", "status")
            return json.loads(result.stdout)["state"]

        terminal.until(lambda: state() == "paused", "a pause")
        self.server.start()
        self.assertEqual(self.run_vireo("ctl", self.dir / "control", "resume").returncode, 0)
        self.finish(terminal)


class Nbd(Cases, harness.Case):
    """nbdkit."""

    kind = servers.Nbd


class Iscsi(Cases, harness.Case):
    """tgtd."""

    kind = servers.Iscsi


class Nfs(Cases, harness.Case):
    """nfs-ganesha."""

    kind = servers.Nfs


if __name__ == "__main__":
    harness.main()
