"""One cluster's place: its folder, addresses and names. Several can run side by side, each with its slot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness import programs

SLOTS = range(16)
NODES = 2
GPUS = 8
PAUSE = "stackctl.test/pause:1"
BRIDGE = "pods"
BRIDGE_ADDRESS = "02:00:00:00:00:01"
"""The one network of the control plane, the nodes and their pods."""


@dataclass(frozen=True)
class Site:
    """The place of one cluster."""

    slot: int

    @property
    def name(self) -> str:
        """The name of the machine's link to the cluster, of its cgroup and of its folder."""
        return f"stackctl-{self.slot}"

    @property
    def folder(self) -> Path:
        return programs.STATE / self.name

    @property
    def host(self) -> str:
        """The machine's own address in the cluster's network, which is of the range for tests of networks."""
        return f"198.18.{self.slot}.1"

    @property
    def control_plane(self) -> str:
        return f"198.18.{self.slot}.2"

    @property
    def subnet(self) -> str:
        return f"198.18.{self.slot}.0/24"

    @property
    def addresses(self) -> list[str]:
        """The addresses of the control plane and of the nodes."""
        return [self.control_plane, *map(self.node_address, range(NODES))]

    @property
    def server(self) -> str:
        return f"https://{self.control_plane}:6443"

    def node_name(self, index: int) -> str:
        return f"node-{index}"

    def node_address(self, index: int) -> str:
        return f"198.18.{self.slot}.{10 + index}"

    def pod_range(self, index: int) -> tuple[str, str]:
        """The first and last address of a node's pods."""
        return f"198.18.{self.slot}.{64 + 64 * index}", f"198.18.{self.slot}.{126 + 64 * index}"

    def node_folder(self, index: int) -> Path:
        return self.folder / self.node_name(index)
