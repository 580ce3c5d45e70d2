"""Nodes of a cluster on which runs failed first: counted over the runs of a namespace. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from stackctl.jobs.kubernetes import RUN_LABEL
from stackctl.runs import observe
from stackctl.runs.objects import Pod
from stackrt.contract import Reason

DAY = timedelta(days=1)
"""How long a failure is held against a node."""

TOO_MANY = 2
"""Runs that failed on a node before it is avoided: one may be the run's own fault."""

_NODES_OWN = {Reason.RANK_FAILED: "rank failed", Reason.NODE_LOST: "node lost"}
_NO_PROGRAM = r"executable file not found|no such file or directory"
"""A container that cannot be started for this is the image's fault, wherever it is."""


class NodeFailure(NamedTuple):
    """A run that failed, the node of the cluster where it failed first, and how."""

    host: str
    run: str
    why: str


def failures(pods: Iterable[Pod], now: datetime) -> list[NodeFailure]:
    """What failed in the last day: for each attempt of a run the node where it failed first, each run once a node.

    What a run brought upon itself is not counted: a wrong configuration, too little memory, an image without the
    program; nor that the cluster stopped it.

    Args:
        pods: Of all runs of a namespace, or those of them that have failed.
    """
    attempts: dict[tuple[str, int], list[Pod]] = {}
    for pod in pods:
        run = pod.metadata.labels.get(RUN_LABEL)
        if run and pod.status.phase == "Failed" and _ended(pod) > now - DAY:
            attempts.setdefault((run, pod.attempt), []).append(pod)
    found = [NodeFailure(host, run, why) for (run, _), rows in sorted(attempts.items()) for host, why in _first(rows)]
    return list({(row.host, row.run): row for row in found}.values())


def told(found: Sequence[NodeFailure], hosts: Iterable[str]) -> list[str]:
    """A line for each of some nodes on which more than one run failed."""
    return [
        f"{host} has failed {len(rows)} runs in the last day: {', '.join(f'{row.run} ({row.why})' for row in rows)}"
        for host in dict.fromkeys(hosts)
        if len(rows := [row for row in found if row.host == host]) >= TOO_MANY
    ]


def avoided(found: Sequence[NodeFailure]) -> list[str]:
    """The nodes that a new run had better not take."""
    hosts = [row.host for row in found]
    return sorted({host for host in hosts if hosts.count(host) >= TOO_MANY})


def _first(pods: Sequence[Pod]) -> list[tuple[str, str]]:
    """Of an attempt's pods that failed, the nodes that began it, and how."""
    if any((ended := pod.state.terminated) and ended.reason == "OOMKilled" for pod in pods):
        return []
    report = observe.failure(pods)
    if report:
        why = _NODES_OWN.get(report.get("reason", ""))
        hosts = [pod.spec.node_name for pod in pods if pod.index == report.get("node")]
        return [(host, why) for host in hosts if host and why]
    found = [(pod.spec.node_name, _without_report(pod)) for pod in pods]
    return [(host, why) for host, why in found if host and why]


def _without_report(pod: Pod) -> str:
    """What the cluster says of a pod that failed without a word of its launcher; empty if it is not the node's."""
    ended, disruption = pod.state.terminated, pod.disruption
    if pod.status.reason == "NodeLost" or (disruption and disruption.reason in observe.NODE_GONE):
        return "node lost"
    if ended and ended.reason in ("StartError", "ContainerCannotRun") and not re.search(_NO_PROGRAM, ended.message):
        return "not started"
    return ""


def _ended(pod: Pod) -> datetime:
    ended = pod.state.terminated
    stamp = (ended and ended.finished_at) or pod.metadata.creation_timestamp
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")) if stamp else datetime.min.replace(tzinfo=UTC)
