"""A network of nodes on this machine: a network namespace each, joined by a bridge. Needs root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.commands import ROOT
from tests.support.processes import background

MEETING_PORT = 29400
PREFIX = "10.71.0."


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Cluster:
    """Nodes 0 to n-1 at 10.71.0.1 and so on; each has one interface, eth0."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.name = f"stack{os.getpid()}"

    def __enter__(self) -> Cluster:
        self._add(self.switch)
        ip("-n", self.switch, "link", "add", "br0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "br0", "up")
        for node in range(self.nodes):
            self._add(self.space(node))
            peer = ["peer", "name", "eth0", "netns", self.space(node)]
            ip("-n", self.switch, "link", "add", f"port{node}", "type", "veth", *peer)
            ip("-n", self.switch, "link", "set", f"port{node}", "master", "br0", "up")
            ip("-n", self.space(node), "address", "add", f"{address(node)}/24", "dev", "eth0")
            ip("-n", self.space(node), "link", "set", "eth0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for space in [*(self.space(node) for node in range(self.nodes)), self.switch]:
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)

    def _add(self, space: str) -> None:
        ip("netns", "add", space)
        ip("-n", space, "link", "set", "lo", "up")

    @property
    def switch(self) -> str:
        return f"{self.name}-switch"

    def space(self, node: int) -> str:
        return f"{self.name}-{node}"

    def limit(self, node: int, rate: str) -> None:
        """Let a node send and receive no faster than that (tc-tbf(8))."""
        for space, interface in ((self.switch, f"port{node}"), (self.space(node), "eth0")):
            shape = ["root", "tbf", "rate", rate, "burst", "128kb", "latency", "50ms"]
            subprocess.run(["tc", "-n", space, "qdisc", "add", "dev", interface, *shape], check=True)

    def block(self, source: int, target: int) -> None:
        """Let a node reach another one no more, but for the meeting's port."""
        rule = ["-s", address(source), "-p", "tcp", "--syn", "!", "--dport", str(MEETING_PORT)]
        argv = ["iptables", "-A", "INPUT", *rule, "-j", "REJECT", "--reject-with", "tcp-reset"]
        subprocess.run(["ip", "netns", "exec", self.space(target), *argv], check=True)

    def suite(
        self, folder: Path, *only: str, env: Mapping[int, Mapping[str, str]] | None = None
    ) -> list[dict[str, dict[str, Any]]]:
        """Run the suite on all nodes at once; its rows by node and name.

        Args:
            env: More environment variables, by node.
        """
        file = folder / "report.json"
        suite = [sys.executable, "-m", "stackrt.checks", "--only", *only, "--json", str(file)]
        with ExitStack() as stack:
            started = []
            for node in range(self.nodes):
                contract = {
                    "PYTHONPATH": str(ROOT / "images"),
                    "STACK_NODES": str(self.nodes),
                    "STACK_NODE_RANK": str(node),
                    "WORLD_SIZE": str(self.nodes),
                    "MASTER_ADDR": address(0),
                    "MASTER_PORT": str(MEETING_PORT),
                    "GLOO_SOCKET_IFNAME": "eth0",
                    **(env or {}).get(node, {}),
                }
                argv = ["ip", "netns", "exec", self.space(node), *suite]
                started.append(stack.enter_context(background(argv, env={**os.environ, **contract})))
            outputs = [process.communicate(timeout=120)[0] for process in started]
        codes: Sequence[int] = [process.returncode for process in started]
        assert len(set(codes)) == 1, outputs
        rows = json.loads(file.read_text())["checks"]
        return [{row["name"]: row for row in rows if row["node"] == node} for node in range(self.nodes)]


def address(node: int) -> str:
    return f"{PREFIX}{node + 1}"
