#!/usr/bin/python3
"""
Guests on a switch: they reach each other, but not across VLANs, nor where they are isolated; transfers arrive whole; a switch that is ended and started
again is a link that goes and comes.
"""

import json
import os
import signal
import subprocess
import threading
import time

import guest
import harness

SIZE = 3 << 20  # bytes that one guest sends the other


def address(n):
    """The IPv4 address of guest n on the network that is tested."""
    return f"10.9.0.{n}"


def aside(n):
    """Its address on a second one, where they all meet."""
    return f"10.8.0.{n}"


def until(command):
    """Shell commands that wait for one to succeed."""
    return f"until {command}; do sleep 0.2; done"


def reaches(n):
    """A line of whether guest n is reached."""
    return f"ping -c 3 -i 0.2 -W 1 {address(n)} >/dev/null && echo reached {n} || echo no {n}"


class SwitchCase(harness.Case):
    """A switch, and guests that run scripts on it."""

    def setUp(self):
        super().setUp()
        self.socket = self.dir / "lan"
        self.switch = None
        self.addCleanup(self.stop_switch)

    def start_switch(self, *args):
        """Starts it, and waits until it listens."""
        self.switch = subprocess.Popen([harness.VIREO, "switch", self.socket, *map(str, args)], stderr=subprocess.PIPE,
                                       stdin=subprocess.DEVNULL)
        self.assertIn(b"listens on", self.switch.stderr.readline())

    def stop_switch(self):
        """Ends it as its user would."""
        if self.switch:
            self.switch.send_signal(signal.SIGTERM)
            self.assertEqual(self.switch.wait(harness.PATIENCE), 0)
            self.switch.stderr.close()
        self.switch = None

    def status(self):
        """What the switch tells."""
        return json.loads(self.run_vireo("switch", self.socket, "--status").stdout)

    def guests(self, *scripts, nets=None, files=None):
        """
        Runs a guest for each script, with addresses 1, 2, ...; the lines of each. They all are up before a script begins, and until the
        first one has ended. nets: what follows the switch's name in each one's --net.
        """
        subprocess.run([harness.ROOT / "tools/guest-prepare"], check=True, stdout=subprocess.DEVNULL)
        everybody = range(1, len(scripts) + 1)
        meet = "; ".join(until(f"ping -c 1 -W 1 {aside(n)} >/dev/null") for n in everybody)
        leave = "; ".join(until(f"echo | nc {aside(n)} 7") for n in everybody[1:])
        results = [None] * len(scripts)
        failures = []

        def run(i):
            directory = self.dir / str(i)
            directory.mkdir()
            n = i + 1
            up = f"ip link set lo up; ip link set eth0 up; ip addr add {address(n)}/24 dev eth0; "
            up += f"ip link set eth1 up; ip addr add {aside(n)}/24 dev eth1"
            end = leave if i == 0 else "nc -l -p 7 >/dev/null"
            options = []
            for net in (f"port=vm{n},mac=52:54:00:00:00:{n:02x}" + (nets[i] if nets else ""),
                        f"port=aside{n},mac=52:54:00:00:01:{n:02x},vlan=99"):
                options += ["--net", f"switch={self.socket},{net}"]
            try:
                args = guest.arguments(directory, f"{up}; {meet}; {scripts[i]}; {end}", files or {}, options=options, memory="256M")
                result = self.run_vireo(*args, "--timeout", guest.PATIENCE, timeout=guest.PATIENCE + 60)
                results[i] = result.stdout.decode(errors="replace").replace("\r", "").splitlines()
                if result.returncode or "vireo.script: exit status 0" not in results[i]:
                    failures.append((n, result.returncode, result.stderr.decode(errors="replace"), results[i][-30:]))
            except BaseException as failure:  # pylint: disable=broad-except
                failures.append((n, failure))

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(scripts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        return results


class Reach(SwitchCase):
    """Who reaches whom."""

    def test_vlans_and_isolation(self):
        """Guests of a VLAN reach each other; one of another VLAN is not reached, nor do isolated ones reach each other."""
        self.start_switch("--isolate", "vm1", "--isolate", "vm4")
        lines = self.guests(f"{reaches(2)}; {reaches(3)}; {reaches(4)}", "true", f"{reaches(1)}; {reaches(2)}; {reaches(4)}",
                            reaches(2), nets=[",vlan=10", ",vlan=10", ",vlan=20", ",vlan=10"])
        self.assertEqual([[line for line in some if line.startswith(("reached", "no "))] for some in lines],
                         [["reached 2", "no 3", "no 4"], [], ["no 1", "no 2", "no 4"], ["reached 2"]])

    def test_transfer(self):
        """Bytes arrive as they were sent, in packets larger than a wire's, which a capture shows. How large is the sender's pace."""
        capture = self.dir / "vm2.pcap"
        self.start_switch("--capture", f"vm2={capture}")
        data = os.urandom(SIZE)
        lines = self.guests(until(f"nc {address(2)} 9 </test/data"), "nc -l -p 9 >/tmp/got; cmp /tmp/got /test/data && echo same",
                            files={"test/data": data})
        self.assertIn("same", lines[1])
        self.assertGreater(max(self.frame_lengths(capture)), 1514)

    @staticmethod
    def frame_lengths(path):
        """Of a capture."""
        data, at = path.read_bytes(), 24
        while at < len(data):
            length = int.from_bytes(data[at + 8:at + 12], "little")
            yield length
            at += 16 + length


class Link(SwitchCase):
    """A switch that goes."""

    def test_switch_returns(self):
        """The guest sees its link go and come, and works on."""
        self.start_switch()
        script = "; ".join(["cd /sys/class/net/eth0; was=$(cat carrier_down_count)", reaches(2), "ping -c 9 -i 0.2 -W 1 10.9.0.77 >/dev/null",
                            until("[ $(cat carrier_down_count) -gt $was ]"), "echo link down",
                            until("[ $(cat carrier) = 1 ]"), "echo link up", until(f"ping -c 1 -W 1 {address(2)} >/dev/null"),
                            "echo reached again"])
        other = threading.Thread(target=self.restart)
        other.start()
        lines = self.guests(script, "true")
        other.join()
        found = [line for line in lines[0] if line in ("reached 2", "link down", "link up", "reached again")]
        self.assertEqual(found, ["reached 2", "link down", "link up", "reached again"])

    def restart(self):
        """Ends the switch when vm1 has looked for somebody who is not there, and starts it again."""
        limit = time.monotonic() + guest.PATIENCE
        while not any(p["name"] == "vm1" and p["in"]["frames"] > 12 for p in self.status()["ports"]):
            if time.monotonic() > limit:
                return
            time.sleep(0.2)
        self.stop_switch()
        time.sleep(2)
        self.start_switch()


if __name__ == "__main__":
    harness.main()
