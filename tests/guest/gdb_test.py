"""
The real gdb on a guest: a kernel of a few instructions, of which each is known, and Debian's with its symbols.

usage: gdb_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine.
"""

import os
import re
import signal
import socket
import subprocess
import time

import harness

ENGINE = os.environ.get("VIREO_TEST_ENGINE", "auto")

LOOP, NOP, LOAD, BACK = 26, 32, 33, 46


def entry():
    """Where harness.elf() puts the first instruction."""
    return harness.LOAD + 52 + 32 + 12


def code():
    """32-bit code without paging: some registers, then a loop. The offsets of its instructions are in the comments."""
    return bytes.fromhex(
        "0f20e1"        # 0   mov ecx, cr4
        "81c900060000"  # 3   or ecx, OSFXSR | OSXMMEXCPT
        "0f22e1"        # 9   mov cr4, ecx
        "b878563412"    # 12  mov eax, 0x12345678
        "660f6ec8"      # 17  movd xmm1, eax
        "a304002000"    # 21  mov [0x200004], eax
        "ff0500002000"  # 26  LOOP: inc dword [0x200000]
        "90"            # 32  NOP
        "8b1d04002000"  # 33  LOAD: mov ebx, [0x200004]
        "0fb60d") + (entry() + NOP).to_bytes(4, "little") + bytes.fromhex(  # 39  movzx ecx, byte [NOP]
            "ebea")     # 46  BACK: jmp LOOP


class Debug(harness.Case):
    """A vireo that gdb can reach."""

    def setUp(self):
        super().setUp()
        self.socket = self.dir / "gdb"
        self.vireo = None

    def start(self, kernel, *args, option=""):
        """vireo with that kernel, a path or bytes of code."""
        if isinstance(kernel, bytes):
            path = self.dir / "kernel"
            path.write_bytes(harness.elf(kernel))
            kernel = path
        self.vireo = subprocess.Popen([harness.VIREO, "run", "--engine", ENGINE, "--kernel", kernel, "--gdb",
                                       f"unix:{self.socket}{option}", "--timeout", str(10 * harness.PATIENCE), *map(str, args)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end)
        self.assertEqual(self.vireo.stderr.readline().decode(), f"vireo: for gdb: target remote {self.socket}\n")

    def end(self):
        """Ends vireo, if it still runs."""
        self.vireo.kill()
        self.vireo.communicate()

    def gdb(self, *commands, check=True, timeout=harness.PATIENCE):
        """What gdb prints when it carries out the commands, connected."""
        script = self.dir / "script"
        script.write_text("\n".join(["set pagination off", "set confirm off", "set print thread-events off",
                                     f"target remote {self.socket}", *commands, ""]))
        process = subprocess.Popen(["gdb", "-nx", "-q", "-batch", "-x", script], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            text = process.communicate(timeout=timeout)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            self.fail(f"gdb waits in vain; so far: {process.communicate()[0].decode(errors='replace')}")
        if check:
            self.assertEqual(process.returncode, 0, text)
        return text

    def shown(self, text):
        """The lines "name=value" of gdb's output that show() makes."""
        return re.findall(r"^(\w+)=(\S+)$", text, re.M)


def show(name, expression="$pc"):
    """A gdb command that prints an expression as a line for shown()."""
    return f'printf "{name}=%#lx\\n", (long)({expression})'


def at(offset):
    """An address in the code, as shown()."""
    return hex(entry() + offset)


# A gdb command: whenever the guest goes on, Ctrl-C on gdb's terminal a moment later.
INTERRUPT = ("python import threading, os, signal; gdb.events.cont.connect(lambda _: "
             "threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start())")


class Small(Debug):
    """The guest of code(), and those of harness.CODE."""

    def test_registers_and_steps(self):
        """The VM stands at its first instruction; registers of every kind, read and written."""
        self.start(code(), "--cpus", 2)
        text = self.gdb(show("start"), *["stepi"] * 5, show("stepped"), show("cr4", "$cr4"), show("xmm", "$xmm1.v4_int32[0]"),
                        "set $rax = 0x55", "set $xmm1.v4_int32[3] = 9", "set $ymm2.v8_int32[6] = 7", "set $st3 = 1.5",
                        "set $fs_base = 0x1122334455667788 & 0xffffffff", "stepi", "maintenance flush register-cache",
                        show("stored", "*(int *)0x200004"), show("high", "$ymm1.v8_int32[3]"), show("low", "$ymm1.v8_int32[0]"),
                        show("upper", "$ymm2.v8_int32[6]"), 'printf "float=%g\\n", $st3', show("fs", "$fs_base"),
                        "info registers cr0 efer eflags", "monitor registers", "info threads")
        self.assertEqual(self.shown(text), [
            ("start", at(0)), ("stepped", at(21)), ("cr4", "0x600"), ("xmm", "0x12345678"), ("stored", "0x55"), ("high", "0x9"),
            ("low", "0x12345678"), ("upper", "0x7"), ("float", "1.5"), ("fs", "0x55667788")])
        self.assertRegex(text, r"cr0 +0x11 +\[ PE ET \]")
        self.assertIn('Could not write register "cs"', self.gdb("set $cs = 0", check=False))
        self.assertRegex(text, r"\* 1 .*CPU 0, running, CPL 0")
        self.assertRegex(text, r"  2 .*CPU 1, waiting for SIPI")
        self.assertRegex(text, r"rip  0{10}100")

    def test_breakpoints(self):
        """Software and hardware breakpoints stop before their instruction, every time, and the guest cannot see them."""
        self.start(code())
        text = self.gdb(f"break *{at(NOP)}", "continue", show("first"), "continue", show("second"), show("seen", "$rcx"),
                        f"hbreak *{at(BACK)}", "continue", show("third"), "delete 1", "continue", show("fourth"),
                        "stepi", show("fifth"), show("count", "*(int *)0x200000"))
        self.assertEqual(self.shown(text), [("first", at(NOP)), ("second", at(NOP)), ("seen", "0x90"), ("third", at(BACK)),
                                            ("fourth", at(BACK)), ("fifth", at(LOOP)), ("count", "0x3")])

    def test_watchpoints(self):
        """Writes, reads, and either, behind the instruction."""
        self.start(code())
        text = self.gdb("watch *(int *)0x200000", "continue", show("write"), "continue", show("again"), "delete",
                        "rwatch *(int *)0x200004", "continue", show("read"), "delete",
                        "awatch *(int *)0x200000", "continue", show("access"), "delete")
        self.assertEqual(self.shown(text), [("write", at(NOP)), ("again", at(NOP)), ("read", at(LOAD + 6)), ("access", at(NOP))])
        self.assertIn("Old value = 0\nNew value = 1\n", text)
        self.assertIn("Old value = 1\nNew value = 2\n", text)

    def test_code_that_gdb_writes(self):
        """What gdb writes over an instruction that has been run is what runs next."""
        self.start(code())
        text = self.gdb(f"break *{at(BACK)}", "continue", "continue", show("before", "$rbx"),
                        f"set *(char *){at(LOOP)} = 0xcc", f"set *(char *){at(NOP)} = 0x43", f"set *(char *){at(LOOP)} = 0xff",
                        f"tbreak *{at(LOAD)}", "set $rbx = 0x10", "continue", show("after", "$rbx"))
        self.assertEqual(self.shown(text), [("before", "0x12345678"), ("after", "0x11")])

    def test_interrupt(self):
        """Ctrl-C stops a loop, and gdb can let it go on."""
        self.start(code())
        text = self.gdb(INTERRUPT, "continue", show("one", "*(int *)0x200000 > 0"), "continue",
                        show("two", f"$pc >= {at(LOOP)} && $pc <= {at(BACK)}"))
        self.assertEqual(text.count("SIGINT"), 2, text)
        self.assertEqual(self.shown(text), [("one", "0x1"), ("two", "0x1")])

    def test_breakpoint_in_a_running_loop(self):
        """One that is set while the loop has been running at full speed for a while, on its way and at its head."""
        self.start(code())
        text = self.gdb(INTERRUPT, "continue", show("runs", "*(int *)0x200000 > 100"), f"break *{at(LOAD)}",
                        "set $before = *(int *)0x200000", "continue", show("middle"), show("soon", "*(int *)0x200000 - $before <= 1"),
                        "delete", f"hbreak *{at(LOOP)}", "continue", show("head"), "continue", show("again"))
        self.assertEqual(text.count("SIGINT"), 1, text)
        self.assertEqual(self.shown(text), [("runs", "0x1"), ("middle", at(LOAD)), ("soon", "0x1"), ("head", at(LOOP)),
                                            ("again", at(LOOP))])

    def test_reset(self):
        """Breakpoints outlive a reset."""
        self.start(harness.CODE["reset"])
        text = self.gdb(f"hbreak *{at(0)}", "continue", show("again"), "continue", show("thrice"), "monitor reset",
                        "maintenance flush register-cache", "stepi", "continue", show("monitor"))
        self.assertEqual(self.shown(text), [("again", at(0)), ("thrice", at(0)), ("monitor", at(0))])

    def test_ends(self):
        """gdb hears how a VM ends; what the guest traps itself is the guest's."""
        for name, args, status in (("debug", ["--debug-exit"], 43), ("reset", ["--no-reboot"], 3)):
            with self.subTest(name):
                self.start(harness.CODE[name], *args)
                text = self.gdb(f"break *{at(0)}", "continue", 'printf "code=%d\\n", $_exitcode')
                self.assertEqual(self.shown(text), [("code", str(status))], text)
                self.vireo.communicate(timeout=harness.PATIENCE)
                self.assertEqual(self.vireo.returncode, status)
                self.assertFalse(self.socket.exists())

    def test_triple_fault(self):
        """gdb sees the CPU as it was, and the VM ends when it goes on like that; or it does not, if gdb sends it elsewhere."""
        self.start(harness.CODE["crash"])
        text = self.gdb("continue", show("at"), "set $pc = $pc + 1", "stepi", show("past"), f"set $pc = {at(7)}", "continue",
                        show("again"), "set $pc = $pc", "set $rax = 1", "continue", "continue", 'printf "code=%d\\n", $_exitcode')
        self.assertEqual(self.shown(text), [("at", at(7)), ("past", at(9)), ("again", at(7)), ("code", "3")], text)
        self.assertEqual(text.count("SIGSEGV"), 3, text)
        self.vireo.communicate(timeout=harness.PATIENCE)
        self.assertEqual(self.vireo.returncode, 3)

    def test_kill(self):
        """A debugger may end the VM."""
        for command in ("kill", "monitor quit"):
            with self.subTest(command):
                self.start(code())
                self.gdb(command, check=False)
                self.vireo.communicate(timeout=harness.PATIENCE)
                self.assertEqual(self.vireo.returncode, 0)

    def test_leaves(self):
        """The VM goes on when gdb detaches, ends, or dies; the next may come."""
        self.start(harness.CODE["flood"], "--console", f"file:{self.dir}/console")
        self.assertEqual(self.printed(), 0)
        self.gdb(f"break *{at(0)}", "detach")
        self.flows()
        self.gdb(f"break *{at(0)}", "continue")  # and quits at the end
        self.flows()
        process = subprocess.Popen(["gdb", "-nx", "-q", "-ex", f"target remote {self.socket}", "-ex", f"break *{at(0)}", "-ex",
                                    "continue", "-ex", "echo stands\\n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        while process.stdout.readline() != b"stands\n":
            self.assertIsNone(process.poll())
        process.kill()
        process.communicate()
        self.flows()
        self.vireo.terminate()
        self.vireo.communicate(timeout=harness.PATIENCE)
        self.assertEqual(self.vireo.returncode, -signal.SIGTERM)

    def printed(self):
        """Bytes that the guest has printed."""
        console = self.dir / "console"
        return console.stat().st_size if console.exists() else 0

    def flows(self):
        """The guest prints on."""
        limit, before = time.monotonic() + harness.PATIENCE, self.printed()
        while self.printed() <= before + 100000:  # more than was on its way
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.01)

    def test_nowait(self):
        """The VM runs before a debugger comes."""
        self.start(harness.CODE["idle"], option=",nowait")
        self.assertEqual(self.vireo.stdout.readline(), b"ready\r\n")
        self.assertIn("CPU 0, halted", self.gdb("info threads"))

    def test_tcp(self):
        """On a port that is free, which vireo tells; lines that are no packets do no harm."""
        path = self.kernel("idle")
        self.vireo = subprocess.Popen([harness.VIREO, "run", "--engine", ENGINE, "--kernel", path, "--gdb", "tcp:localhost:0"],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end)
        host, port = re.search(r"remote (.*):(\d+)\n", self.vireo.stderr.readline().decode()).groups()
        with socket.create_connection((host, int(port)), timeout=harness.PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n$g#00$?#3f")
            text = b""
            while b"T05thread:1;" not in text:
                text += client.recv(4096)
            self.assertTrue(text.startswith(b"-+$T05thread:1;"), text)
        self.assertEqual(self.vireo.stdout.readline(), b"ready\r\n")  # it has gone, so the VM goes on
        self.socket = f"{host}:{port}"
        self.assertIn("CPU 0, halted", self.gdb("info threads"))


class Kernel(Debug):
    """Debian's kernel; its symbols come from the table it has of them itself."""

    @classmethod
    def setUpClass(cls):
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)

    def setUp(self):
        super().setUp()
        self.symbols = self.dir / "symbols"
        subprocess.run([harness.ROOT / "tools/kernel-symbols", harness.GUEST / "vmlinux", self.symbols], check=True)

    def test_boot(self):
        """From the first instruction to user space on two CPUs, by names."""
        self.start(harness.GUEST / "vmlinux", "--initrd", harness.GUEST / "initrd.img", "--cpus", 2, "--append",
                   "console=ttyS0 nokaslr", "--console", "none")
        text = self.gdb(
            f"file {self.symbols}", show("paging", "$cr0 >> 31"),
            "hbreak start_kernel", "continue", show("start", "$pc == (long)&start_kernel"), "x/i $pc", show("lma", "$efer >> 10 & 1"),
            show("cr3", "$cr3 != 0"), "x/s &linux_banner", "info registers cr4", "stepi", "x/i $pc", "delete",
            # When the first of the CPUs idles, the other is on its way there.
            "break do_idle", "continue", "bt 2", "info threads", "delete",
            "watch *(unsigned long *)&jiffies_64", "continue", "bt 2", "continue", "delete",
            # Text is read-only by now.
            "tbreak do_exit", "continue", "info symbol $pc", "thread 1", show("gs", "$gs_base < 0"), "delete",
            # The first program.
            "tbreak begin_new_exec", "continue", "info symbol $pc", "stepi 20", show("kernel", "(long)$pc < 0"),
            timeout=3 * harness.PATIENCE)
        values = self.shown(text)
        self.assertEqual(values, [("paging", "0"), ("start", "0x1"), ("lma", "0x1"), ("cr3", "0x1"), ("gs", "0x1"),
                                  ("kernel", "0x1")], text)
        self.assertRegex(text, r"=> 0x\w+ <start_kernel>:\tcall +0x\w+ <__fentry__>")
        self.assertIn("=> 0xffffffff", text)
        self.assertRegex(text, r'"Linux version 6')
        self.assertRegex(text, r"cr4 .*\[.*PAE.*\]")
        self.assertRegex(text, r"#0 +0x\w+ in do_idle \(\)")
        self.assertRegex(text, r"(?s)1 +Thread 1 \(CPU 0, running, CPL 0\).*2 +Thread 2 \(CPU 1, running, CPL 0\)")
        old, new = re.findall(r"Old value = (\d+)\nNew value = (\d+)\n", text)[0]
        self.assertEqual(int(new), int(old) + 1)
        self.assertEqual(len(re.findall(r"^do_exit in section", text, re.M)), 1, text)
        self.assertEqual(len(re.findall(r"^begin_new_exec in section", text, re.M)), 1, text)


class Symbols(harness.Case):
    """tools/kernel-symbols by itself."""

    def make(self, kernel, out):
        """Runs it."""
        return subprocess.run([harness.ROOT / "tools/kernel-symbols", kernel, out], capture_output=True, check=False)

    def test_symbols(self):
        """Of every kind, in their sections."""
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        out = self.dir / "symbols"
        self.assertEqual(self.make(harness.GUEST / "vmlinux", out).returncode, 0)
        listed = subprocess.run(["nm", "--format=sysv", out], capture_output=True, check=True).stdout.decode()
        found = {}
        for line in listed.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 7:
                found.setdefault(fields[0], (fields[2], fields[6]))
        self.assertGreater(len(found), 50000)
        for name, letter, section in (("start_kernel", "T", ".init.text"), ("do_idle", "t", ".text"), ("init_task", "D", ".data"),
                                      ("linux_banner", "D", ".rodata"), ("current_task", "D", ".data..percpu")):
            self.assertEqual(found[name][1], section, name)
            self.assertEqual(found[name][0].islower(), letter.islower(), name)

    def test_bad_files(self):
        """One line that names the file."""
        good = (harness.GUEST / "vmlinux").read_bytes()
        contents = {"empty": b"", "text": b"hello\n" * 1000, "other": harness.elf(b""), "cut": good[:len(good) // 3],
                    "header": good[:64], "zeroes": good[:64] + bytes(len(good) - 64)}
        for name, content in contents.items():
            with self.subTest(name):
                (self.dir / name).write_bytes(content)
                result = self.make(self.dir / name, self.dir / "out")
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr.decode(), rf"^tools/kernel-symbols: \S+/{name}: .*\n$")
        self.assertEqual(self.make(self.dir / "absent", self.dir / "out").returncode, 1)
        self.assertFalse((self.dir / "out").exists())


class Source(Debug):
    """Debian's kernel with the types and lines of its package of symbols, which is large."""

    @classmethod
    def setUpClass(cls):
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([harness.ROOT / "tools/guest-debuginfo"], check=True, stdout=subprocess.DEVNULL)

    def test_source(self):
        """Lines, arguments and backtraces, by way of breakpoints that gdb sets for itself."""
        self.start(harness.GUEST / "vmlinux", "--initrd", harness.GUEST / "initrd.img", "--cpus", 2, "--append",
                   "console=ttyS0 nokaslr", "--console", "none")
        text = self.gdb(f"file {harness.ROOT}/guest-debug/vmlinux", "break start_kernel", "continue", "next", "next",
                        "p init_task.comm", "break begin_new_exec", "continue", "bt", "p bprm->file->f_path.dentry->d_name.name",
                        "finish", "delete", "watch jiffies_64", "continue", timeout=5 * harness.PATIENCE)
        self.assertRegex(text, r"hit Breakpoint 1, start_kernel \(\) at init/main.c:\d+")
        self.assertRegex(text, r'= "swapper')
        self.assertRegex(text, r"#0  begin_new_exec \(bprm=.*\) at fs/exec.c:\d+\n#1 .* in load_elf_binary ")
        self.assertRegex(text, r"#\d .* in kernel_init .*\n#\d .* in ret_from_fork ")
        self.assertRegex(text, r'= .* 0x\w+ "busybox"')
        self.assertRegex(text, r"Value returned is \$\d+ = 0\n")
        old, new = re.findall(r"Old value = (\d+)\nNew value = (\d+)\n", text)[0]
        self.assertGreater(int(new), int(old))


if __name__ == "__main__":
    harness.main()
