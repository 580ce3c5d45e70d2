"""Kueue's queues: whether a job could ever fit one's quota, and why a run still waits in it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stackctl.jobs import quantity
from stackctl.runs.objects import Condition
from stackctl.runs.queue_objects import ClusterQueue, Flavor, LocalQueue, Workload

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

SHOWN = 5
"""Runs that a sentence names."""


class Picture(NamedTuple):
    """What may be seen of the queue of a run: nothing of a part that the person may not read.

    `namespace_queues` and `workloads` are of the run's namespace.
    """

    queue: str
    namespace_queues: Sequence[LocalQueue] = ()
    workloads: Sequence[Workload] | None = None
    cluster_queue: ClusterQueue | None = None


class Lacking(NamedTuple):
    """How much more a run needs of a resource in a flavor."""

    amount: str
    resource: str
    flavor: str


def never(cluster_queue: ClusterQueue, need: Mapping[str, str], *, nodes: int) -> str:
    """Why a job could never fit the quota, however long it waits; empty if it could.

    Args:
        need: What one pod asks for.
    """
    name = cluster_queue.metadata.name
    wanted = {resource: nodes * quantity.value(amount) for resource, amount in need.items()}
    groups = cluster_queue.spec.resource_groups
    if any("pods" in group.covered_resources for group in groups):
        wanted["pods"] = float(nodes)
    for resource in wanted:
        if not any(resource in group.covered_resources for group in groups):
            return f"the queue {name} has no quota for {resource}, so it never starts what asks for it"
    for group in groups:
        mine = {resource: amount for resource, amount in wanted.items() if resource in group.covered_resources}
        short = [_short(cluster_queue, flavor, mine) for flavor in group.flavors]
        if mine and all(short):
            return f"the queue {name} can never hold it: {'; '.join(short) or 'it has no flavor'}"
    return ""


def _short(cluster_queue: ClusterQueue, flavor: Flavor, wanted: Mapping[str, float]) -> str:
    """What a flavor could never give of what is wanted; empty if it could give all."""
    found = {quota.name: cluster_queue.most(quota) for quota in flavor.resources}
    said = [
        f"{quantity.show(amount)} {resource} wanted, {quantity.show(found.get(resource, 0.0))} at most"
        for resource, amount in wanted.items()
        if amount > found.get(resource, 0.0)
    ]
    return f"{' and '.join(said)} in flavor {flavor.name}" if said else ""


def standing(picture: Picture, uid: str) -> tuple[str, list[str]]:
    """Why the run of a Job waits in its queue, and Kueue's own words.

    As `needs 4 nvidia.com/gpu more in flavor default of queue team; 2 runs are before it; q1 holds 8`.
    """
    if picture.workloads is None:
        return "you may not list workloads, which tell why", []
    mine = next((row for row in picture.workloads if row.is_of(uid)), None)
    if mine is None:
        return f"Kueue has not seen it in the queue {picture.queue} yet: its manager may not run", []
    reserved = mine.condition("QuotaReserved", "False")
    preempted = mine.condition("Preempted")
    evidence = [row.message for row in (reserved, preempted) if row and row.message]
    if not mine.spec.active:
        why = mine.condition("Evicted") or mine.condition("DeactivationTarget")
        return f"Kueue has given it up{f': {why.message}' if why else ''}", evidence
    if not mine.waits:
        return "it has its quota, and waits for its admission checks", [
            f"{row.type}: {row.message}" for row in mine.status.conditions if row.status != "True" and row.message
        ]
    lacking = told_lacking(reserved.message) if reserved else []
    said = [_needs(picture, lacking, reserved.message if reserved else ""), _before(picture, mine)]
    said += [_holders(picture, lacking), _preempted(picture, preempted)]
    return "; ".join(filter(None, said)), evidence


_MORE = re.compile(r"insufficient unused quota for (\S+) in flavor (\S+), (\S+) more needed")


def told_lacking(message: str) -> list[Lacking]:
    """What more is needed, as a Workload's condition tells it."""
    return [Lacking(amount, resource, flavor) for resource, flavor, amount in _MORE.findall(message)]


def _needs(picture: Picture, lacking: Sequence[Lacking], message: str) -> str:
    name = shared_queue(picture) or picture.queue
    local = next((row for row in picture.namespace_queues if row.metadata.name == picture.queue), None)
    closed = (local and local.closed) or (picture.cluster_queue and picture.cluster_queue.closed)
    if closed:
        return f"nothing is admitted from queue {name}: {closed}"
    if lacking:
        needs = " and ".join(f"{row.amount} {row.resource} more in flavor {row.flavor}" for row in lacking)
        return f"needs {needs} of queue {name}"
    return message or f"queue {name} has not come to it yet"


def _before(picture: Picture, mine: Workload) -> str:
    others = [row for row in _together(picture) if row.waits and row.place < mine.place]
    if not others:
        return ""
    return "1 run is before it" if len(others) == 1 else f"{len(others)} runs are before it"


def _holders(picture: Picture, lacking: Sequence[Lacking]) -> str:
    """Who has what is lacking: runs of the namespace by name, those of others as one."""
    if not lacking:
        return ""
    row = lacking[0]
    held: dict[str, float] = {}
    for workload in _together(picture):
        for flavor, resource, amount in workload.uses():
            if (flavor, resource) == (row.flavor, row.resource) and workload.condition("QuotaReserved"):
                held[workload.run] = held.get(workload.run, 0.0) + amount
    said = [f"{name} holds {quantity.show(amount)}" for name, amount in sorted(held.items(), key=lambda it: -it[1])]
    if len(said) > SHOWN:
        said = [*said[:SHOWN], f"{len(said) - SHOWN} more hold the rest"]
    if picture.cluster_queue:
        theirs = picture.cluster_queue.reserved(row.flavor, row.resource) - sum(held.values())
        said += [f"other namespaces hold {quantity.show(theirs)}"] if theirs > 0 else []
    return ", ".join(said)


def _preempted(picture: Picture, condition: Condition | None) -> str:
    """Who has taken its place, where it had one."""
    if condition is None:
        return ""
    found = re.search(r"JobUID: ([^,)\s]+)", condition.message)
    for row in picture.workloads or ():
        if found and row.is_of(found[1]):
            return f"{row.run} has taken its place"
    return "another run has taken its place"


def shared_queue(picture: Picture) -> str:
    """The ClusterQueue's name; empty if it may not be seen."""
    return next((row.spec.cluster_queue for row in picture.namespace_queues if row.metadata.name == picture.queue), "")


def _together(picture: Picture) -> list[Workload]:
    """The workloads of the namespace that share the run's ClusterQueue."""
    shared = shared_queue(picture)
    names = {row.metadata.name for row in picture.namespace_queues if row.spec.cluster_queue == shared}
    return [row for row in picture.workloads or () if row.spec.queue_name in (names or {picture.queue})]
