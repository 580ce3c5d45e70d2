"""Whether a cluster has room for a job: free amounts per node after what runs there. Pure.

The structures below name the few fields of Kubernetes' objects that this takes; the rest is not even decoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from stackctl.jobs import quantity
from stackctl.jobs.profiles import Toleration

SHOWN = 5
"""Nodes that an error names."""


class Metadata(msgspec.Struct, frozen=True):
    """An object's name and labels."""

    name: str = ""
    labels: dict[str, str] = {}


class Taint(msgspec.Struct, frozen=True):
    """What keeps pods away that do not tolerate it."""

    key: str
    effect: str
    value: str = ""


class NodeSpec(msgspec.Struct, frozen=True):
    """Whether pods may be placed on a node."""

    unschedulable: bool = False
    taints: list[Taint] = []


class Condition(msgspec.Struct, frozen=True):
    """One of a node's conditions."""

    type: str
    status: str


class NodeStatus(msgspec.Struct, frozen=True):
    """What a node has, what of that it has to give, and how it is."""

    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: list[Condition] = []


class Node(msgspec.Struct, frozen=True):
    """A node of the cluster."""

    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class Resources(msgspec.Struct, frozen=True):
    """What a container asks for."""

    requests: dict[str, str] = {}


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """A container of a pod. One that starts before the others and stays up has the policy `Always`."""

    resources: Resources = Resources()
    restart_policy: str = ""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """Where a pod runs and with what."""

    node_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    overhead: dict[str, str] = {}


class Pod(msgspec.Struct, frozen=True):
    """A pod that holds resources."""

    spec: PodSpec


class Room(msgspec.Struct, frozen=True):
    """How many of the job's pods a cluster can take now, how many if nothing else ran, and which nodes fall short."""

    now: int
    ever: int
    short: tuple[str, ...]


def room(
    nodes: Sequence[Node],
    pods: Sequence[Pod],
    need: Mapping[str, float],
    *,
    selector: Mapping[str, str],
    tolerations: Sequence[Toleration],
    apart: bool = False,
) -> Room:
    """Count the pods that fit.

    Args:
        pods: Every pod in the cluster that has a node and has not ended.
        need: What one pod asks for, without what it asks none of.
        apart: Each pod needs a node of its own.
    """
    wanted = {**need, "pods": 1.0}
    used = _used(pods, wanted)
    now = ever = 0
    most = 1 if apart else math.inf
    short: list[tuple[float, str]] = []
    for node in nodes:
        reason = closed(node, selector, tolerations)
        if reason:
            short.append((0.0, f"{node.metadata.name}: {reason}"))
            continue
        has = {name: quantity.value(node.status.allocatable.get(name, "0")) for name in wanted}
        free = {name: has[name] - used.get(node.metadata.name, {}).get(name, 0.0) for name in wanted}
        ever += _times(has, wanted, most)
        fits = _times(free, wanted, most)
        now += fits
        if not fits:
            lacking = [name for name in wanted if free[name] < wanted[name]]
            said = ", ".join(f"{name} {_of(name, free[name], has[name])} free" for name in lacking)
            short.append((min(free[name] / wanted[name] for name in lacking), f"{node.metadata.name}: {said}"))
    # The nodes that come nearest first: those with something free, not those that are closed.
    short.sort(key=lambda row: -row[0])
    return Room(now, ever, tuple(text for _, text in short))


def refusal(found: Room, *, nodes: int, need: Mapping[str, float]) -> str:
    """Why a job of so many nodes does not fit now, with the nodes that fall short; empty if it fits."""
    if found.now >= nodes:
        return ""
    what = (
        " and ".join(f"{name} {quantity.told(name, amount)}" for name, amount in need.items())
        or "no resources in particular"
    )
    has = f"{found.now} of {nodes} nodes fit now: each needs {what}"
    lines = [f"  {text}" for text in found.short[:SHOWN]]
    if len(found.short) > SHOWN:
        lines.append(f"  and {len(found.short) - SHOWN} more")
    return "\n".join([has, *lines])


def _used(pods: Sequence[Pod], wanted: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Node -> resource -> what pods ask for there."""
    used: dict[str, dict[str, float]] = {}
    for pod in pods:
        if not pod.spec.node_name:
            continue
        row = used.setdefault(pod.spec.node_name, {})
        row["pods"] = row.get("pods", 0.0) + 1
        for name in wanted:
            amount = _holds(pod.spec, name)
            if amount:
                row[name] = row.get(name, 0.0) + amount
    return used


def _holds(pod: PodSpec, name: str) -> float:
    """Of containers that run at once the sum, or the most while it starts: those that stay up, and one more."""
    total, up, first = sum(_asked(row, name) for row in pod.containers), 0.0, 0.0
    for row in pod.init_containers:
        amount = _asked(row, name)
        first = max(first, up + amount)
        if row.restart_policy == "Always":
            up += amount
    return max(total + up, first) + (quantity.value(pod.overhead[name]) if name in pod.overhead else 0.0)


def _asked(container: Container, name: str) -> float:
    text = container.resources.requests.get(name)
    return quantity.value(text) if text else 0.0


def _times(amounts: Mapping[str, float], wanted: Mapping[str, float], most: float) -> int:
    return max(0, int(min(most, *(amounts[name] / wanted[name] + 1e-9 for name in wanted))))


def closed(node: Node, selector: Mapping[str, str], tolerations: Sequence[Toleration]) -> str:
    """Why a node takes none of the job's pods, whatever is free there; empty if it may."""
    ready = {row.type: row.status for row in node.status.conditions}.get("Ready")
    if ready != "True":
        return "not ready"
    if node.spec.unschedulable:
        return "cordoned"
    missing = [f"{key}={value}" for key, value in selector.items() if node.metadata.labels.get(key) != value]
    if missing:
        return f"has no label {missing[0]}"
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not any(_tolerates(row, taint) for row in tolerations):
            return f"has the taint {taint.key}{'=' + taint.value if taint.value else ''}:{taint.effect}"
    return ""


def _tolerates(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)


def _of(name: str, free: float, has: float) -> str:
    return f"{quantity.told(name, max(free, 0.0))} of {quantity.told(name, has)}"
