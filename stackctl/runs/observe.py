"""How a run on a cluster fares, from the cluster's objects. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from stackctl.jobs.job import Job
from stackctl.jobs.kubernetes import JOB_NOTE
from stackctl.runs import objects
from stackctl.runs.handle import NoSuchRun
from stackctl.runs.states import State
from stackrt.contract import Reason

PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")

NODE_GONE = ("DeletionByPodGC", "DeletionByTaintManager")
"""Why the cluster ended a pod whose node went away."""


class NodeView(msgspec.Struct, frozen=True):
    """One node of a job: the newest pod that stands for it, what it does, and where."""

    node: int
    pod: str
    state: str
    host: str


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is now. `attempt` counts from 1; `attempts` is how many there may be.

    `failed_nodes` tells of those of its nodes on which several runs have failed.
    """

    name: str
    namespace: str
    state: State
    attempt: int
    attempts: int
    created: str
    ended: str = ""
    reason: str = ""
    nodes: tuple[NodeView, ...] = ()
    result: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    failed_nodes: tuple[str, ...] = ()


def job_of(found: objects.KubeJob) -> Job:
    """The job that was submitted, from the note on the cluster's Job.

    Raises:
        NoSuchRun: Something else made this Job.
    """
    try:
        return msgspec.json.decode(found.metadata.annotations.get(JOB_NOTE, ""), type=Job)
    except msgspec.DecodeError:
        raise NoSuchRun(f"the Job {found.metadata.name} is not one of stackctl's") from None


def view(found: objects.KubeJob, pods: Sequence[objects.Pod]) -> View:
    """The run that a Job and its pods make."""
    newest = newest_pods(pods)
    complete, failed = found.condition("Complete"), found.failing
    state = _state(found, newest)
    return View(
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        state=state,
        attempt=max((pod.attempt for pod in pods), default=1),
        attempts=found.spec.backoff_limit_per_index + 1,
        created=found.metadata.creation_timestamp,
        ended=found.status.completion_time if complete else "",
        reason=f"{failed.reason}: {failed.message}" if failed and state == "failed" else "",
        nodes=tuple(NodeView(pod.index, pod.metadata.name, doing(pod), pod.spec.node_name) for pod in newest),
        result=next((pod.report for pod in newest if pod.index == 0 and complete and pod.report), None),
        failure=failure(pods),
    )


def with_kept(now: View, attempt: int, result: dict[str, Any] | None, failure: dict[str, Any] | None) -> View:
    """The same, with what a run has kept on its claim where its pods are gone."""
    known = {"result": now.result or (result if now.state == "succeeded" else None), "failure": now.failure or failure}
    return msgspec.structs.replace(now, attempt=max(now.attempt, attempt), **known)


def line(now: View) -> str:
    """How a run fares, in one line."""
    states: dict[str, int] = {}
    for node in now.nodes:
        states[node.state] = states.get(node.state, 0) + 1
    nodes = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{now.name}: {now.state}, attempt {now.attempt} of {now.attempts}" + (f" ({nodes})" * bool(nodes))


def newest_pods(pods: Sequence[objects.Pod]) -> list[objects.Pod]:
    """The pod that stands for each node now, by node."""
    chosen: dict[int, objects.Pod] = {}
    for pod in sorted(pods, key=lambda pod: (pod.own_attempt, pod.metadata.creation_timestamp)):
        chosen[pod.index] = pod
    return [chosen[index] for index in sorted(chosen)]


def failure(pods: Sequence[objects.Pod]) -> dict[str, Any] | None:
    """The launchers' report on the newest attempt that failed: the one that names a rank, if there is one."""
    reports = [pod.failure for pod in pods if pod.failure]
    if not reports:
        return None
    last = max(int(row.get("attempt") or 0) for row in reports)
    order = (Reason.CONFIG, Reason.RANK_FAILED, Reason.NODE_LOST, Reason.PEERS_MISSING)
    ranked: dict[str, int] = {reason: number for number, reason in enumerate(order)}
    mine = [row for row in reports if int(row.get("attempt") or 0) == last]
    return min(mine, key=lambda row: ranked.get(str(row.get("reason")), len(order)))


def doing(pod: objects.Pod) -> str:
    """What a pod does, in a few words."""
    ended = pod.state.terminated
    if pod.status.reason:
        return pod.status.reason.lower()
    if ended:
        return "succeeded" if ended.exit_code == 0 else f"failed (exit code {ended.exit_code})"
    if pod.metadata.deletion_timestamp:
        return "ending"
    if pod.state.running:
        return "running"
    if pod.unschedulable:
        return "waiting for a node"
    why = pod.problem.reason if pod.problem else "starting" if pod.spec.node_name else "pending"
    return "cannot pull its image" if why in PULL_REASONS else why  # which of them it is changes every few seconds


def _state(found: objects.KubeJob, newest: Sequence[objects.Pod]) -> State:
    if found.condition("Complete"):
        return "succeeded"
    if found.condition("Failed") or (found.failing and _all_ended(newest)):
        return "failed"
    if found.metadata.deletion_timestamp:
        return "stopped"
    return "queued" if found.spec.suspend else _progress(found, newest)


def _all_ended(newest: Sequence[objects.Pod]) -> bool:
    """Whether every pod has ended, or is on a node that has gone: the Job waits for such a pod to be removed."""
    return all(pod.status.phase == "Failed" or pod.overdue for pod in newest) and any(pod.overdue for pod in newest)


def _progress(found: objects.KubeJob, newest: Sequence[objects.Pod]) -> State:
    ends = [pod.state.terminated for pod in newest]
    up = sum(1 for pod in newest if pod.state.running or (pod.state.terminated and not pod.state.terminated.exit_code))
    if up == found.spec.completions:
        return "running"
    again = any(pod.own_attempt > 1 for pod in newest) or any(end and end.exit_code for end in ends)
    return "restarting" if again else "pending"
