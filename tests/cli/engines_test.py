"""`vireo engines`: lines and JSON tell the same, and auto is what they say it is."""

import json
import os
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "guest"))
import harness  # pylint: disable=wrong-import-position


class Engines(harness.Case):
    """The command by itself, and beside `vireo run`."""

    def engines(self, *args, **kwargs):
        """Its standard output, when all is well."""
        result = self.run_vireo("engines", *args, **kwargs)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        return result.stdout.decode()

    def test_lines(self):
        """One for each engine, that it is usable or why not."""
        lines = self.engines().split("\n\n")[0].splitlines()
        listed = json.loads(self.engines("--json"))
        self.assertEqual([line.split()[0] for line in lines], [engine["name"] for engine in listed])
        for line, engine in zip(lines, listed):
            self.assertIn(engine["kind"], line)
            if engine["usable"]:
                self.assertRegex(line, r" usable, [\d.]+ M instructions/s")
                self.assertGreater(engine["instructions_per_second"], 0)
                self.assertIsNone(engine["reason"])
            else:
                self.assertRegex(line, r" not usable: .")
                self.assertTrue(engine["reason"])
            self.assertEqual("auto" in line, engine["auto"])
        self.assertTrue(any(engine["name"] == "interp" and engine["usable"] for engine in listed))

    def test_auto(self):
        """It is the first usable, and what `vireo run` takes."""
        listed = json.loads(self.engines("--json"))
        first = next(engine for engine in listed if engine["usable"])
        self.assertEqual([engine["name"] for engine in listed if engine["auto"]], [first["name"]])
        stats = self.dir / "stats.json"
        result = self.run_vireo("run", "--kernel", self.kernel("debug"), "--debug-exit", "--stats", stats)
        self.assertEqual((result.returncode, result.stderr), (0x2B, b""))
        self.assertEqual(json.loads(stats.read_text())["engine"], first["name"])
        result = self.run_vireo("run", "--engine", first["name"], "--kernel", self.kernel("debug"), "--debug-exit")
        self.assertEqual(result.returncode, 0x2B, result.stderr)

    @unittest.skipUnless(os.geteuid() == 0 and Path("/dev/kvm").exists() and not Path("/dev/kvm").stat().st_mode & 2,
                         "it takes root, and a /dev/kvm that is not for all")
    def test_permission(self):
        """Without the right to /dev/kvm, that is the reason."""
        program = self.dir / "vireo"
        program.write_bytes(harness.VIREO.read_bytes())
        program.chmod(0o755)
        self.dir.chmod(0o755)
        result = harness.subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "engines", "--json"],
                                        capture_output=True, check=False, timeout=harness.PATIENCE)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        kvm = next(engine for engine in json.loads(result.stdout) if engine["name"] == "kvm")
        self.assertFalse(kvm["usable"])
        self.assertIn("permission denied", kvm["reason"])

    def test_host(self):
        """What the host has: the same in both forms, each feature with one of four answers."""
        text = self.engines().split("\n\n")[1]
        host = next(engine for engine in json.loads(self.engines("--json")) if engine["name"] == "kvm")["host"]
        self.assertEqual(set(host["features"]), {"nested_paging", "tagged_tlb", "apic_virtualization", "posted_interrupts", "tsc_scaling",
                                                 "nested_guests"})
        self.assertLessEqual(set(host["features"].values()), {"unknown", "no", "off", "yes"})
        self.assertIn(host["virtualization"], ("VT-x", "AMD-V", None))
        self.assertIn(f"CPU virtualization              {host['virtualization'] or 'not there'}", text)
        if host["virtualization"] is None:
            self.assertEqual(set(host["features"].values()), {"no"})
        self.assertIn(host["module"] or "none that is loaded", text)
        if host["max_vcpus"] is None:
            self.assertIn("unknown: no KVM could be asked", text)
            self.assertEqual(set(host["capabilities"].values()), {None})
        else:
            self.assertIn(f"{host['max_vcpus']} vCPUs a VM", text)
            self.assertLessEqual(set(host["capabilities"].values()), {True, False})

    def test_wrong_use(self):
        """Options of its own, checked as everywhere."""
        self.one_line(self.run_vireo("engines", "kvm"), 2, "'kvm'", "--help")
        self.one_line(self.run_vireo("engines", "--jsn"), 2, "--jsn", "did you mean --json")
        self.one_line(self.run_vireo("engines", "--json=1"), 2, "--json", "no value")
        self.one_line(self.run_vireo("engine"), 2, "'engine'", "did you mean engines")

    def test_help(self):
        """Its own, without what concerns a guest."""
        text = self.engines("--help")
        self.assertIn("--json", text)
        self.assertNotIn("Ctrl-A x ends", text)
        self.assertNotIn("--timeout", text)
        with open("/dev/full", "wb") as full:
            result = harness.subprocess.run([harness.VIREO, "engines"], stdout=full, stderr=-1, check=False)
        self.assertEqual(result.returncode, 1)


if __name__ == "__main__":
    harness.main()
