"""
A hypervisor as the guest: Debian's Xen, with Debian's kernel in its paravirtualized domain 0. Xen runs that kernel in ring 3, under segments
and page tables of its own.

usage: xen_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import os
import subprocess

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")
# Without firmware there is nobody to ask by real-mode calls.
XEN = "no-real-mode edd=off noreboot com1=115200,8n1 console=com1 dom0_mem=512M"
DOM0 = "console=hvc0 earlyprintk=xen"


class Xen(harness.Case):
    """A boot each."""

    def boot(self, cpus):
        """As far as a kernel comes without a root file system."""
        for tool in ("guest-prepare", "guest-xen"):
            subprocess.run([harness.ROOT / "tools" / tool], check=True, stdout=subprocess.DEVNULL)
        terminal = harness.Terminal("run", "--engine", ENGINE, "--cpus", str(cpus), "--memory", "1G", "--kernel", harness.ROOT / "guest-xen/xen",
                                    "--initrd", harness.GUEST / "bzImage", "--append", f"{XEN} -- {DOM0}")
        self.addCleanup(terminal.close)
        terminal.expect(rf"Brought up {cpus} CPUs", harness.PATIENCE * 10)
        terminal.expect(r"Hypervisor detected: Xen PV", harness.PATIENCE * 10)
        terminal.expect(r"VFS: Unable to mount root fs", harness.PATIENCE * 10)
        terminal.expect(r"Hardware Dom0 crashed: 'noreboot' set", harness.PATIENCE)

    def test_one_cpu(self):
        """One vCPU."""
        self.boot(1)

    def test_two_cpus(self):
        """Two vCPUs, which Xen starts and gives to its domain."""
        self.boot(2)


if __name__ == "__main__":
    harness.main()
