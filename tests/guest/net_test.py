#!/usr/bin/python3
"""
The network of a real guest: an address by DHCP, what the host serves, ports of the guest's that the host reaches, a guest that is kept in, links
that come and go with the other end. Servers listen on the host's loopback, where a guest finds them as 10.0.2.2.
"""

import hashlib
import http.server
import os
import re
import socket
import subprocess
import threading
import time

import guest
import harness

PAGE = os.urandom(3 << 20)

# What udhcpc calls with what it has been given.
DHCP = b"""#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo nameserver $dns >/etc/resolv.conf
echo "bound $ip/$mask by $router, names by $dns"
"""
UP = "ip link set lo up; ip link set eth0 up; udhcpc -q -n -t 20 -i eth0 -s /test/dhcp 2>/dev/null"


class Server(http.server.ThreadingHTTPServer):
    """Serves PAGE, takes what is posted, and knows its digest."""

    class Handler(http.server.BaseHTTPRequestHandler):
        """Everything is one page."""

        def do_GET(self):
            """The page."""
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_):
            """Nobody reads it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


def free_port(kind=socket.SOCK_STREAM):
    """A port that nobody has at the moment."""
    with socket.socket(type=kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Net(harness.Case):
    """One guest each."""

    def boot(self, script, *nets, cpus=1):
        """The lines that the script prints in a guest with these interfaces; it has to end well."""
        files = {"test/dhcp": DHCP, "test/run": ("#!/bin/busybox sh\n" + script).encode()}
        command = guest.arguments(self.dir, "/test/run", files, cpus=cpus)
        for net in nets:
            command += ["--net", net]
        result = self.run_vireo(*command, "--timeout", guest.PATIENCE, timeout=guest.PATIENCE + 60)
        lines = [line for line in result.stdout.decode(errors="replace").replace("\r", "").splitlines() if line]
        text = "\n".join([result.stderr.decode(errors="replace"), *lines])
        self.assertEqual(result.returncode, 0, text)
        self.assertIn("vireo.script: exit status 0", lines, text)
        return lines[lines.index("begin") + 1:]

    def test_user(self):
        """DHCP, what the host serves to the guest, a transfer the other way, and nothing that the kernel complains of."""
        server = Server()
        taken = hashlib.sha256()
        sink = socket.create_server(("127.0.0.1", 0))

        def take():
            with sink.accept()[0] as s:
                while data := s.recv(1 << 16):
                    taken.update(data)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        lines = self.boot(f"""
            {UP} || exit 1
            ping -c 2 10.0.2.2 >/dev/null && echo pinged
            wget -q -O /tmp/page http://10.0.2.2:{server.port}/ || exit 1
            sha256sum </tmp/page
            nc 10.0.2.2 {sink.getsockname()[1]} </tmp/page || exit 1
            cat /sys/class/net/eth0/address /sys/class/net/eth0/carrier
            {guest.COMPLAINTS} && exit 1
            exit 0
            """, "user,mac=02:00:00:00:12:34")
        thread.join(harness.PATIENCE)
        digest = hashlib.sha256(PAGE).hexdigest()
        self.assertIn("bound 10.0.2.15/24 by 10.0.2.2, names by 10.0.2.3", lines)
        self.assertIn("pinged", lines)
        self.assertIn(f"{digest}  -", lines)
        self.assertEqual(taken.hexdigest(), digest)
        self.assertIn("02:00:00:00:12:34", lines)
        self.assertIn("1", lines)

    def test_plain(self):
        """The same for a guest that does without offloads."""
        server = Server()
        lines = self.boot(f"""
            {UP} || exit 1
            wget -q -O - http://10.0.2.2:{server.port}/ | sha256sum
            """, "user,mtu=1400")
        self.assertIn(f"{hashlib.sha256(PAGE).hexdigest()}  -", lines)

    def test_queues(self):
        """Two pairs of queues on two CPUs: the driver uses both."""
        server = Server()
        lines = self.boot(f"""
            {UP} || exit 1
            for i in 1 2 3 4; do wget -q -O - http://10.0.2.2:{server.port}/ | sha256sum & done
            wait
            ls /sys/class/net/eth0/queues
            """, "user,queues=2", cpus=2)
        self.assertEqual(lines.count(f"{hashlib.sha256(PAGE).hexdigest()}  -"), 4)
        for name in ("rx-0", "rx-1", "tx-0", "tx-1"):
            self.assertIn(name, " ".join(lines))

    def test_forwards(self):
        """The host reaches ports of the guest's, TCP and UDP, also while the guest is restricted."""
        port, udp_port = free_port(), free_port(socket.SOCK_DGRAM)
        answers = []
        over = threading.Event()

        def knock():
            """Until somebody is there: before that, connections are taken and end at once. Datagrams until the guest is gone: those that
            come before it has an address are lost."""
            while not over.is_set():
                with socket.socket(type=socket.SOCK_DGRAM) as s:
                    s.sendto(b"datagram\n", ("127.0.0.1", udp_port))
                if answers:
                    time.sleep(0.3)
                    continue
                try:
                    with socket.create_connection(("127.0.0.1", port), 10) as s:
                        s.sendall(b"hello")
                        s.shutdown(socket.SHUT_WR)
                        if answer := s.recv(100):
                            answers.append(answer)
                except OSError:
                    pass
                time.sleep(0.3)

        self.addCleanup(over.set)
        threading.Thread(target=knock, daemon=True).start()
        self.boot(f"""
            {UP} || exit 1
            nc -l -p 22 -e sed s/hello/welcome/
            n=0 # nobody listens on UDP, and the kernel counts what comes
            until grep -q '^Udp: [0-9]* [1-9]' /proc/net/snmp; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done
            exit 0
            """, f"user,restrict,hostfwd=tcp::{port}-:22,hostfwd=udp::{udp_port}-:53")
        self.assertEqual(answers, [b"welcome"])

    def test_restrict(self):
        """A restricted guest gets an address and reaches nothing."""
        server = Server()
        lines = self.boot(f"""
            {UP} || exit 1
            wget -q -O - http://10.0.2.2:{server.port}/ >/tmp/page && exit 1
            echo got $(wc -c </tmp/page)
            exit 0
            """, "user,restrict")
        self.assertIn("got 0", lines)

    def test_capture(self):
        """Frames both ways are in the capture."""
        server = Server()
        path = self.dir / "net.pcap"
        self.boot(f"{UP} || exit 1\nwget -q -O /dev/null http://10.0.2.2:{server.port}/\n", f"user,capture={path}")
        data = path.read_bytes()
        self.assertIn(PAGE[:1000], data)
        self.assertIn(b"GET / HTTP/1.1", data)
        self.assertGreater(len(data), len(PAGE))

    def test_limit(self):
        """A rate is not exceeded: 3 MiB at 1 MiB a second take no less than two and a half seconds."""
        server = Server()
        lines = self.boot(f"""
            {UP} || exit 1
            cut -d ' ' -f 1 /proc/uptime
            wget -q -O - http://10.0.2.2:{server.port}/ | sha256sum
            cut -d ' ' -f 1 /proc/uptime
            """, "user,bps=1M,bps-burst=256K")
        times = [float(line) for line in lines if re.fullmatch(r"\d+\.\d\d", line)]
        self.assertIn(f"{hashlib.sha256(PAGE).hexdigest()}  -", lines)
        self.assertGreater(times[1] - times[0], 2.5)


class Tap(harness.Case):
    """A tap in a namespace of its own, with the host's end of it to answer."""

    def test_tap(self):
        """The guest reaches the host over the tap, and sees that it has a link."""
        script = """
            ip link set lo up && ip tuntap add dev tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up &&
            exec "$@"
            """
        probe = subprocess.run(["unshare", "-rn", "ip", "tuntap", "add", "dev", "t", "mode", "tap"], capture_output=True,
                               check=False)
        if probe.returncode:
            self.skipTest("no network namespaces here")
        inside = b"""#!/bin/busybox sh
            ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0
            ping -c 3 192.0.2.1 >/dev/null && echo pinged
            cat /sys/class/net/eth0/carrier
            exit 0
            """
        command = guest.arguments(self.dir, "/test/run", {"test/run": inside})
        result = subprocess.run(["unshare", "-rn", "sh", "-c", script, "sh", harness.VIREO, *map(str, command), "--net", "tap=tap0",
                                 "--timeout", str(guest.PATIENCE)], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                timeout=guest.PATIENCE + 60)
        text = (result.stdout + result.stderr).decode(errors="replace")
        self.assertEqual(result.returncode, 0, text)
        self.assertIn("pinged", text)


class Refused(harness.Case):
    """One line each, and no guest."""

    def test_lines(self):
        """What cannot be plugged in."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for net, *words in (("user,hostfwd=tcp::%d-:22" % port, str(port), "127.0.0.1", "in use"),
                                ("tap=no-such-tap", "no-such-tap", "there is no such interface"),
                                ("tap=lo", "lo"),
                                ("switch=/nowhere/at/all", "/nowhere/at/all")):
                with self.subTest(net):
                    self.one_line(self.run_vireo("run", "--kernel", self.kernel("idle"), "--net", net), 2, *words)

    def test_twice(self):
        """Two interfaces of one address."""
        self.one_line(self.run_vireo("run", "--kernel", self.kernel("idle"), "--net", "user,mac=02:00:00:00:00:01", "--net",
                                     "user,mac=02:00:00:00:00:01"), 2, "02:00:00:00:00:01")


if __name__ == "__main__":
    harness.main()
