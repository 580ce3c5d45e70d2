"""The cluster's own namespaces, seen from outside: starting programs in them, and their link to this machine."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.harness.site import BRIDGE, BRIDGE_ADDRESS, NODES, SLOTS, Site

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOGC": "400"}
"""What the cluster's programs get: nothing of the environment of the tests, and less work for garbage collectors."""


class Namespaces:
    """A set of namespaces with `jail.py` as its first process. They go when this process goes, however it ends."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("jail.py")
        kinds = ["--pid", "--mount", "--net", "--fork", "--mount-proc", "--kill-child"]
        self.process = subprocess.Popen(
            ["unshare", *kinds, sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the tests, which then end this in order
        )
        self.answer(30)
        self.site = self.join()
        names = list(map(self.site.node_name, range(NODES)))
        self.ask("own", state=str(self.site.folder), cgroup=self.site.name, nodes=names)

    def ask(self, command: str, seconds: float = 30, **words: Any) -> dict[str, Any]:
        """Give `jail.py` a command; returns its answer."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": command, **words}) + "\n")
        self.process.stdin.flush()
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout
        readable, _, _ = select.select([self.process.stdout], [], [], seconds)
        answer = json.loads((self.process.stdout.readline() if readable else "") or '{"error": "no answer"}')
        if "error" in answer:
            raise RuntimeError(f"the cluster's first process: {answer['error']}")
        assert isinstance(answer, dict)
        return answer

    def start(self, name: str, argv: list[str]) -> None:
        self.ask("start", name=name, argv=argv, env=ENVIRONMENT, log=str(self.site.folder / f"{name}.log"))

    def kill(self, name: str) -> None:
        self.ask("kill", name=name)

    def join(self) -> Site:
        """Link this machine with the namespaces; the link's name is taken or free, so it also picks the slot."""
        pid = str(self.process.pid)
        for site in map(Site, SLOTS):
            peer = ["type", "veth", "peer", "name", "eth0", "netns", pid]
            made = subprocess.run(["ip", "link", "add", site.name, *peer], capture_output=True, text=True, check=False)
            if made.returncode == 0:
                break
            if "File exists" not in made.stderr:
                raise RuntimeError(f"no link to the cluster: {made.stderr.strip()}")
        else:
            raise RuntimeError(f"{len(SLOTS)} clusters of tests run on this machine already")
        run(f"ip address add {site.host}/24 dev {site.name}", f"ip link set {site.name} up")
        inside = [
            # An address of its own: else it takes a port's, changes it as pods come and go, and those who talk to it
            # keep the old one for seconds.
            f"ip link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge",
            f"ip link set eth0 master {BRIDGE}",
            *(f"ip address add {address}/24 dev {BRIDGE}" for address in site.addresses),
            *(f"ip link set {link} up" for link in ("lo", "eth0", BRIDGE)),
            "ip route add unreachable default",  # pods that look for the internet learn at once that there is none
            "sysctl -q -w net.ipv4.ip_forward=1",
        ]
        run(*(f"nsenter --net --target {pid} {command}" for command in inside))
        return site

    def close(self) -> None:
        """End everything in the namespaces, and wait until nothing of it is left."""
        with self.process:  # its input ends
            pass


def run(*commands: str) -> None:
    for command in commands:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{command}: {done.stderr.strip()}")
