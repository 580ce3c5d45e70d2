"""The CPUs that this node may use, and each rank's share of them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Cpus(NamedTuple):
    """What one node may use of its machine."""

    machine: str
    """The same for all nodes on one kernel, containers and pods included."""
    allowed: tuple[int, ...]
    """Numbers of the CPUs that a process may run on."""
    quota: float | None = None
    """CPUs' worth of time that a cgroup grants, if one limits it."""
    pool: str = ""
    """The same for all nodes that share that quota."""

    @property
    def at_once(self) -> int:
        """Threads that can run at once, at least 1."""
        return max(1, int(min(len(self.allowed), self.quota or len(self.allowed))))


def usable(proc: Path = PROC) -> Cpus:
    """Look at this process's affinity and at the quotas of its cgroup and of those around it."""
    ask = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = tuple(sorted(ask(0))) if ask else tuple(range(os.cpu_count() or 1))
    quota, pool = _smallest_quota(proc)
    # The boot id tells kernels apart: containers have host names of their own, on one machine.
    machine = _read(proc / "sys/kernel/random/boot_id") or os.uname().nodename
    return Cpus(machine, allowed, quota, pool)


def threads(nodes: Sequence[tuple[int, Cpus]]) -> list[int]:
    """How many threads each rank gets so that those of all ranks have a CPU each; at least 1.

    Args:
        nodes: ranks and CPUs of each node. Nodes that may run on the same CPUs of one machine share them, and so do
            nodes below one cgroup's quota.

    Returns:
        Threads of a rank, by node.
    """
    found = []
    for _, ours in nodes:
        beside = sum(
            procs for procs, other in nodes if other.machine == ours.machine and set(other.allowed) & set(ours.allowed)
        )
        share = len(ours.allowed) / beside
        if ours.quota is not None:
            pooled = sum(procs for procs, other in nodes if (other.machine, other.pool) == (ours.machine, ours.pool))
            share = min(share, ours.quota / pooled)
        found.append(max(1, int(share)))
    return found


SPINS = {("GenuineIntel", ""): 400, ("AuthenticAMD", ""): 1100, ("AuthenticAMD", "26"): 700}
"""Maker and family of a CPU (none: all others) -> how often a thread of libgomp looks for its peers at a barrier before
it sleeps: for some 20 us. Between two looks it pauses, for about 140 cycles on Intel's since Skylake, for about 65 on
AMD's, and for half as long again since Zen 5 (family 26). By default it looks for milliseconds on end: beside one other
busy process training is then 20 to 30 times slower. Where it sleeps at once, training alone is slower. All measured
with `python -m bench.load`."""
USUAL_SPINS = SPINS["GenuineIntel", ""]
"""For CPUs of makers that are not known."""


def spins(proc: Path = Path("/proc")) -> int:
    """Return the SPINS of this machine's CPU.

    Args:
        proc: where procfs is mounted.
    """
    rows = (line.partition(":") for line in _read(proc / "cpuinfo").splitlines())
    about: dict[str, str] = {}
    for name, _, value in rows:
        about.setdefault(name.strip(), value.strip())
    maker, family = about.get("vendor_id", ""), about.get("cpu family", "")
    return SPINS.get((maker, family)) or SPINS.get((maker, "")) or USUAL_SPINS


def sleeping_soon(env: Mapping[str, str] = os.environ, looks: int = 0) -> dict[str, str]:
    """Return the variable by which OpenMP's threads that wait for their peers sleep soon; none if `env` has its like.

    libgomp reads it as it is loaded: in a process of one's own it is to be set before torch is imported.

    Args:
        env: of the threads' process.
        looks: as of `SPINS`; 0 for this machine's.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}.isdisjoint(env):
        return {}
    return {"GOMP_SPINCOUNT": str(looks or spins())}


def _smallest_quota(proc: Path) -> tuple[float | None, str]:
    """The least quota, in CPUs, of this process's cgroup and its ancestors, and which cgroup sets it."""
    found: tuple[float | None, str] = (None, "")
    for folder in _cgroups(proc):
        quota = _quota(folder)
        if quota is not None and (found[0] is None or quota < found[0]):
            try:
                about = folder.stat()
            except OSError:
                continue  # it has gone since
            found = quota, f"{about.st_dev}:{about.st_ino}"
    return found


def _cgroups(proc: Path) -> list[Path]:
    """Folders of the cgroups that limit this process's CPU time, its own first, as far as they can be seen from here.

    Source: cgroups(7); proc(5) for mountinfo.
    """
    ours = {}
    for line in _read(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        ours[controllers] = path
    found: list[Path] = []
    for line in _read(proc / "self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = [*after.split(" "), "", ""][:3]
        root, mounted = before.split(" ")[3:5]
        if kind == "cgroup2":
            path = ours.get("", "")
        elif kind == "cgroup" and "cpu" in options.split(","):
            path = next((path for names, path in ours.items() if "cpu" in names.split(",")), "")
        else:
            continue
        if not path:
            continue
        top = Path(mounted.encode().decode("unicode_escape"))
        # A container sees its own cgroup as the root of the mount, though its path may be told from the host's root.
        below = path.removeprefix(root).strip("/") if path.startswith(root) else ""
        folder = top / below if ".." not in below.split("/") else top
        found += [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]
    return found


def _quota(folder: Path) -> float | None:
    """A cgroup's quota in CPUs; None without one. Version 2 has `cpu.max`, version 1 two files."""
    words = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us").strip(),
        _read(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # `max`, or not there
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""
