"""
A guest that is saved under KVM in the nest (nest.py), goes on under the translator outside, and then under KVM again: its program's answer is unchanged.

usage: save_test.py VIREO
"""

import re
import signal

import nest
import harness

ROUNDS = 200000
STEP = 10000
# A random number generator, which tells how far it is.
COUNT = (f"s=1; i=0; while [ $i -lt {ROUNDS} ]; do s=$(((s*1103515245+12345)%2147483648)); i=$((i+1)); "
         f"[ $((i%{STEP})) = 0 ] && echo at $i; done; echo sum $s")
RUN = ("vireo run --engine kvm --cpu x86-64-v2 --memory 80M --cpus 2 --no-reboot --timeout 600 --save state </dev/null >console 2>&1 "
       "--kernel vmlinux --initrd initrd.img --append 'console=ttyS0 quiet panic=-1 vireo.script=\"" + COUNT + "\"' &")
SAVE = f"""
vireo=$!
until grep -q 'at {2 * STEP}' console; do sleep 0.2; kill -0 $vireo || break; done
kill -USR1 $vireo
wait $vireo
echo "== ended with $?"
cat console
dd if=state of=/dev/vda bs=1M conv=sync && sync && echo "== size $(wc -c <state)"
"""
LOAD = """
vireo run --engine kvm --load state --timeout 600 </dev/null
echo "== ended with $?"
"""


def expected():
    """What COUNT comes to."""
    value = 1
    for _ in range(ROUNDS):
        value = (value * 1103515245 + 12345) % 2147483648
    return value


class Moves(harness.Case):
    """From KVM to the translator and back."""

    def outside(self, state):
        """Goes on here for a while; saves again."""
        guest = harness.Terminal("run", "--engine", "bt", "--load", state, "--save", state)
        self.addCleanup(guest.close)
        at = int(guest.expect(r"at (\d+)", nest.PATIENCE)[1])
        self.assertGreater(at, 2 * STEP - 1)
        guest.process.send_signal(signal.SIGUSR1)
        self.assertEqual(guest.wait(), 0, guest.text)

    def finish(self, state):
        """The same state to its end here."""
        result = self.run_vireo("run", "--engine", "bt", "--load", state, "--timeout", nest.PATIENCE, timeout=nest.PATIENCE + 60)
        self.assertIn(f"sum {expected()}", result.stdout.decode().replace("\r", "").splitlines(), result.stderr)
        self.assertEqual(result.returncode, 0)

    def test_there_and_back(self):
        nest.prepare()
        state, disk = self.dir / "state", self.dir / "disk"
        disk.write_bytes(bytes(128 << 20))
        others = {"vmlinux": harness.GUEST / "vmlinux", "initrd.img": harness.GUEST / "initrd.img"}
        drive = ("-drive", f"file={disk},format=raw,if=none,id=d", "-device", "virtio-blk-pci,drive=d")
        _, lines = nest.run(self.dir, RUN + SAVE, nest.files([harness.VIREO], others), options=drive)
        text = "\n".join(lines)
        self.assertIn("== ended with 0", lines, text)
        size = int(re.search(r"^== size (\d+)$", text, re.M)[1])
        with open(disk, "rb") as source:
            state.write_bytes(source.read(size))
        copy = self.dir / "copy"
        copy.write_bytes(state.read_bytes())
        self.finish(copy)
        self.outside(state)
        _, lines = nest.run(self.dir, LOAD, nest.files([harness.VIREO], {"state": state}))
        text = "\n".join(lines)
        self.assertIn(f"sum {expected()}", lines, text)
        self.assertIn("== ended with 0", lines, text)


if __name__ == "__main__":
    harness.main()
