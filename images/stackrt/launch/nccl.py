"""Which network NCCL takes between nodes, by its own log, and whether the cluster's profile promised another.

NCCL falls back to TCP with one line among hundreds, and the job then runs at a twentieth of its speed. Its lines are
those of src/plugin/net.cc ("Using network IB") and of its transports ("NET/Socket : Using [0]eth0:10.0.0.1<0>").
"""

import re
from typing import NamedTuple

ANY = "any"
FABRICS: dict[str, tuple[str, ...]] = {
    ANY: (),
    "tcp": ("",),  # whatever NCCL takes is no slower
    "rdma": ("IB", "IBext", "UCX", "SHARP"),
    "efa": ("AWS Libfabric", "Libfabric", "OFI"),
    "tcpxo": ("FasTrak", "GPUDirectTCPX"),
}
"""What STACK_FABRIC may say -> how the networks begin that NCCL names for it; nothing is promised by `any`."""
PAGE = "docs/kubernetes.md#networks-between-nodes"

_USING = re.compile(rb"NCCL INFO Using network (\S.*?)\s*$")
_DEVICES = re.compile(rb"NCCL INFO NET/(\S+) : Using (.*)$")
_DEVICE = re.compile(rb"\[\d+\]([^:\s]+)[:\s]")


class Network(NamedTuple):
    """What one node's NCCL uses."""

    name: str
    devices: tuple[str, ...]

    def __str__(self) -> str:
        """`Socket on eth0`, `IB on mlx5_0, mlx5_1`."""
        return f"{self.name} on {', '.join(self.devices)}" if self.devices else self.name


class Watch:
    """Looks at a rank's lines for the network that NCCL takes."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self._devices: tuple[str, ...] = ()

    def line(self, line: bytes) -> None:
        """Take one line."""
        if b"NCCL INFO" not in line:
            return
        if devices := _DEVICES.search(line):
            self._devices = tuple(name.decode(errors="replace") for name in _DEVICE.findall(devices[2] + b" "))
        elif using := _USING.search(line):
            self.network = Network(using[1].decode(errors="replace"), self._devices)


def is_promised(network: str, fabric: str) -> bool:
    """Tell whether a network is what the profile promises."""
    return fabric == ANY or network.startswith(FABRICS[fabric])


def sentence(network: Network, fabric: str) -> str:
    """Say what NCCL uses, and what is wrong with it if it is not what was promised."""
    if is_promised(network.name, fabric):
        return f"NCCL uses {network}"
    return f"NCCL uses {network}, though the cluster's profile promises {fabric}: it will be slow; see {PAGE}"
