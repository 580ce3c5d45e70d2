"""Which CPUs are near a rank's GPU: on the same NUMA node, so that data need not cross between sockets on its way."""

from collections.abc import Collection, Sequence
from pathlib import Path

NOWHERE = "-1"
"""What the kernel says where a machine has one node only, or its firmware does not tell."""


def near(bus_id: str, system: Path = Path("/sys")) -> set[int]:
    """Return the CPUs on a PCI device's NUMA node; none if the machine does not tell.

    Source: Documentation/ABI/testing/sysfs-bus-pci of Linux (numa_node, local_cpulist).

    Args:
        bus_id: the device's address, `0000:3b:00.0`.
        system: where sysfs is mounted.
    """
    folder = system / "bus/pci/devices" / bus_id
    try:
        if (folder / "numa_node").read_text().strip() == NOWHERE:
            return set()
        return parse((folder / "local_cpulist").read_text())
    except (OSError, ValueError):
        return set()


def parse(text: str) -> set[int]:
    """Return the numbers of a list such as `0-15,64-79`.

    Raises:
        ValueError: it is none.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        found.update(range(int(first), int(last if dash else first) + 1))
    return found


def plan(bus_ids: Sequence[str], allowed: Collection[int], system: Path = Path("/sys")) -> list[frozenset[int]]:
    """Return for each GPU the CPUs that its rank is to keep to; empty where it may use all that are allowed.

    Args:
        bus_ids: the GPUs' addresses, in the order of the local ranks.
        allowed: CPUs that this node may use.
        system: where sysfs is mounted.
    """
    usable = frozenset(allowed)
    chosen = [usable & near(bus_id, system) for bus_id in bus_ids]
    return [frozenset() if cpus == usable else cpus for cpus in chosen]


def shown(cpus: Collection[int]) -> str:
    """Return `0-15,64-79` for a set of CPUs."""
    runs: list[list[int]] = []
    for number in sorted(cpus):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
