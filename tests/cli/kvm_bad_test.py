"""A KVM that is not there, not allowed, too old, too small or at its wits' end: a line that says so, status 1, and no hang."""

import errno
import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position

FAKE = Path(sys.argv.pop(2)).resolve() if len(sys.argv) > 2 else Path("build/tests/cli/libfake_kvm.so").resolve()

# Numbers of <linux/kvm.h>.
NEEDED = {3: "USER_MEMORY", 41: "VCPU_EVENTS", 50: "DEBUGREGS", 55: "XSAVE", 56: "XCRS", 61: "GET_TSC_KHZ", 136: "IMMEDIATE_EXIT",
          188: "X86_USER_SPACE_MSR", 189: "X86_MSR_FILTER", 200: "SREGS2"}
CREATE_VM, CREATE_VCPU, SET_MEMORY, SET_SREGS2, SET_CPUID2, SUPPORTED_CPUID = 0x01, 0x41, 0x46, 0xCD, 0x90, 0x05
EXIT_UNKNOWN, EXIT_HLT, EXIT_SHUTDOWN, EXIT_FAIL_ENTRY, EXIT_INTERNAL = 0, 5, 8, 9, 17


class BadKvm(harness.Case):
    """vireo on a KVM of the test's own (fake_kvm.c)."""

    def run_on(self, *args, **settings):
        """On the fake, which is told so."""
        environment = {**os.environ, "LD_PRELOAD": str(FAKE), **{f"FAKE_KVM_{k}": str(v) for k, v in settings.items()}}
        environment["ASAN_OPTIONS"] = f"{os.environ.get('ASAN_OPTIONS', '')}:verify_asan_link_order=0"
        return self.run_vireo("run", "--engine", "kvm", "--kernel", self.kernel("idle"), "--console", "none", "--timeout", "30", *args,
                              env=environment)

    def refused(self, words, *args, **settings):
        """Before a guest runs."""
        with self.subTest(**settings):
            self.one_line(self.run_on(*args, **settings), 1, *words)

    def failed(self, what, **settings):
        """In the guest: the line, the registers, the bytes at RIP, which are the kernel's first."""
        with self.subTest(**settings):
            result = self.run_on(**settings)
            text = result.stderr.decode()
            self.assertEqual(result.returncode, 1, text)
            self.assertRegex(text.splitlines()[0], "^vireo: CPU 0: KVM: " + what)
            self.assertRegex(text, r"(?i)\brip\b")
            first = harness.CODE["idle"][:16].hex(" ")
            self.assertRegex(text, f"the guest's memory at 1000[0-9a-f]{{2}}: {first}")
            return text

    def test_it_works(self):
        """Without bad luck: a HLT that nothing ends, until the time is up."""
        result = self.run_on("--timeout", "0.2")
        self.assertEqual((result.returncode, result.stderr), (4, b"vireo: the time of --timeout is up\n"))

    def test_device(self):
        """Absent, forbidden, broken, none."""
        self.refused(["/dev/kvm", "not there", "CPU or kernel"], OPEN=errno.ENOENT)
        self.refused(["/dev/kvm", "permission denied", "group 'root'"], OPEN=errno.EACCES)
        self.refused(["/dev/kvm", "Device or resource busy"], OPEN=errno.EBUSY)
        self.refused(["/dev/kvm", "no KVM"], VERSION=-1)
        self.refused(["/dev/kvm", "version 11", "accepted is 12"], VERSION=11)

    @unittest.skipUnless(os.geteuid() == 0 and Path("/dev/kvm").exists() and not Path("/dev/kvm").stat().st_mode & 2,
                         "it takes root, and a /dev/kvm that is not for all")
    def test_permission(self):
        """Of the real device."""
        program = self.dir / "vireo"
        program.write_bytes(harness.VIREO.read_bytes())
        program.chmod(0o755)
        self.dir.chmod(0o755)
        kernel = self.kernel("idle")
        result = harness.subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "run", "--engine", "kvm",
                                         "--kernel", kernel, "--console", "none", "--timeout", "5"], stdin=harness.subprocess.DEVNULL,
                                        capture_output=True, check=False, timeout=harness.PATIENCE)
        self.one_line(result, 1, "/dev/kvm", "permission denied")

    def test_too_old(self):
        """Each capability that is needed, by name, and since when Linux has it."""
        for number, name in NEEDED.items():
            self.refused(["/dev/kvm", "too old", f"KVM_CAP_{name},", "since "], LACKS=number)

    def test_too_small(self):
        """vCPUs and memory."""
        self.refused(["4 vCPUs", "at most 2 a VM"], "--cpus", "4", VCPUS=2)
        self.refused(["vCPU 0", "KVM_CREATE_VCPU", "Cannot allocate memory"], FAIL=f"{CREATE_VCPU}:{errno.ENOMEM}")
        self.refused(["512 MiB of memory", "KVM_SET_USER_MEMORY_REGION", "Invalid argument"], FAIL=f"{SET_MEMORY}:{errno.EINVAL}")
        self.refused(["2048 MiB of memory", "No space"], "--memory", "4G", FAIL=f"{SET_MEMORY}:{errno.ENOSPC}")
        self.refused(["KVM_CREATE_VM", "Device or resource busy"], FAIL=f"{CREATE_VM}:{errno.EBUSY}")
        self.refused(["KVM_GET_SUPPORTED_CPUID"], FAIL=f"{SUPPORTED_CPUID}:{errno.EINVAL}")
        self.refused(["KVM_SET_CPUID2", "Invalid argument"], FAIL=f"{SET_CPUID2}:{errno.EINVAL}")

    def test_entry(self):
        """The CPU does not take the guest."""
        self.failed("the CPU refuses to enter the guest, hardware reason 0x80000021: .*guest's state", EXIT=f"{EXIT_FAIL_ENTRY}:0x80000021")
        self.failed("the CPU refuses to enter the guest, hardware reason 0x7", EXIT=f"{EXIT_FAIL_ENTRY}:7")
        self.failed("an exit of the CPU that KVM does not know, hardware reason 0x63", EXIT=f"{EXIT_UNKNOWN}:99")
        self.failed("exit 4242, which nobody has asked for", EXIT="4242:0")
        self.failed("KVM_RUN: Bad address", RUN=errno.EFAULT)

    def test_internal_errors(self):
        """KVM does not know how to go on."""
        text = self.failed("internal error 1: an instruction that KVM cannot emulate: 0f ae 3f", EXIT=f"{EXIT_INTERNAL}:1")
        self.assertIn("0f ae 3f", text)
        self.failed("internal error 2: exceptions at the same time", EXIT=f"{EXIT_INTERNAL}:2")
        self.failed("internal error 3: an exit while an event was delivered", EXIT=f"{EXIT_INTERNAL}:3")
        self.failed("internal error 4: an exit that KVM did not expect", EXIT=f"{EXIT_INTERNAL}:4")
        self.failed("internal error 77: unknown", EXIT=f"{EXIT_INTERNAL}:77")

    def test_registers_refused(self):
        """A state that KVM does not take is not run."""
        result = self.run_on(FAIL=f"{SET_SREGS2}:{errno.EINVAL}")
        text = result.stderr.decode()
        self.assertEqual(result.returncode, 1, text)
        self.assertIn("KVM_SET_SREGS2: Invalid argument", text)
        self.assertRegex(text, "(?m)^vireo: CPU 0: KVM: its registers cannot be set")

    def test_triple_fault(self):
        """That is the guest's own."""
        result = self.run_on(EXIT=f"{EXIT_SHUTDOWN}:0")
        self.assertEqual(result.returncode, 3)
        self.assertIn(b"triple fault on CPU 0", result.stderr)


if __name__ == "__main__":
    harness.main()
