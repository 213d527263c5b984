"""
A virtio console's ports in a guest: a named port and its program at the host's end, a console on a terminal, and what the guest hears of both.

usage: console_test.py VIREO [TEST...]; with VIREO_TEST_ENGINE=NAME, on that engine
"""

import os
import socket
import time

import guest
import harness

# A shell's way to a port by its name: /dev/virtio-ports is udev's.
FIND = 'for p in /sys/class/virtio-ports/*; do [ "$(cat $p/name)" = "$1" ] && echo /dev/${p##*/}; done\n'


class Console(harness.Case):
    """Each a guest of its own."""

    def arguments(self, script, *ports):
        """What starts a guest that runs the script, with these ports."""
        files = {"test/find": b"#!/bin/busybox sh\n" + FIND.encode(),
                 "test/run": f"#!/bin/busybox sh\n{script}\n{guest.COMPLAINTS} && exit 1; exit 0\n".encode()}
        return guest.arguments(self.dir, "/test/run", files,
                               options=[*(part for port in ports for part in ("--port", port)), "--timeout", guest.PATIENCE])

    def connect(self, path):
        """To a port's socket, as soon as it is there."""
        until = time.monotonic() + guest.PATIENCE
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(guest.PATIENCE)
        while True:
            try:
                connection.connect(path)
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                self.assertLess(time.monotonic(), until)
                time.sleep(0.01)

    def test_ports(self):
        """A question and an answer over a named port, a log into a file, and a guest that waits until somebody is there."""
        agent, log = str(self.dir / "agent"), self.dir / "log"
        script = ("port=$(/test/find org.vireo.agent)\nexec 3<>$port\nread -r line <&3\necho \"got $line\" >&3\nread -r line <&3\n"
                  "i=0; while [ $i -lt 2000 ]; do echo \"line $i of $line\"; i=$((i+1)); done >$(/test/find log)\n"
                  "echo bye >&3\n")
        terminal = harness.Terminal(*self.arguments(script, f"name=org.vireo.agent,unix={agent}", f"name=log,file={log}"))
        self.addCleanup(terminal.close)
        with self.connect(agent) as connection:
            answers = connection.makefile()
            connection.sendall(b"question\n")
            self.assertEqual(answers.readline(), "got question\n")
            connection.sendall(b"the log\n")
            self.assertEqual(answers.readline(), "bye\n")
        terminal.expect("vireo.script: exit status 0", guest.PATIENCE)
        self.assertEqual(terminal.wait(), 0)
        self.assertEqual(log.read_text(), "".join(f"line {i} of the log\n" for i in range(2000)))
        self.assertFalse(os.path.exists(agent))

    def test_console(self):
        """A shell on hvc0, which is a terminal whose size the guest knows."""
        arguments = self.arguments("setsid cttyhack sh -c 'exec sh <>/dev/hvc0 >&0 2>&0'\n", "console,stdio")
        terminal = harness.Terminal(*arguments, "--console", "none")
        self.addCleanup(terminal.close)
        terminal.expect("# ", guest.PATIENCE)
        terminal.type("echo $((6*7)) on hvc0\n")
        terminal.expect("42 on hvc0", guest.PATIENCE)
        terminal.type("stty size\n")
        terminal.expect("24 80", guest.PATIENCE)
        terminal.type("seq 1 3000 | tail -n 3000 | md5sum; seq 1 3000\n")
        terminal.expect(r"(?s)\n2999\r\n3000\r\n", guest.PATIENCE)
        terminal.type("exit\n")
        self.assertEqual(terminal.wait(guest.PATIENCE), 0)

    def test_refuses(self):
        """Ports that cannot be: one line."""
        kernel = self.kernel("idle")
        for specs, word in ((["name=a"], "unix=PATH"), (["unix=/x"], "name="), (["name=a/b,pty"], "a/b"),
                            (["name=a,none", "name=a,none"], "name='a'"), ([f"name=a,unix={self.dir}/absent/s"], "absent"),
                            (["console,stdio"], "--console none")):
            result = self.run_vireo("run", "--kernel", kernel, *(part for spec in specs for part in ("--port", spec)))
            self.one_line(result, result.returncode, word)
            self.assertNotEqual(result.returncode, 0)


if __name__ == "__main__":
    harness.main()
