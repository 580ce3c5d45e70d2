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

    `kept_by` names the containers, not ours, that keep pods whose launcher has ended. `failed_nodes` tells of those of
    its nodes on which several runs have failed.
    """

    name: str
    namespace: str
    state: State
    attempt: int
    attempts: int
    created: str
    ended: str = ""
    reason: str = ""
    kept_by: tuple[str, ...] = ()
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
    state = _state(found, newest)
    attempt = max((pod.attempt for pod in pods), default=1)
    return View(
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        state=state,
        attempt=attempt,
        attempts=_attempts(found, newest, attempt),
        created=found.metadata.creation_timestamp,
        ended=_ended(found, newest) if state == "succeeded" else "",
        reason=_reason(found, state),
        kept_by=kept_by(newest),
        nodes=tuple(NodeView(pod.index, pod.metadata.name, doing(pod), pod.spec.node_name) for pod in newest),
        result=next((pod.report for pod in newest if pod.index == 0 and state == "succeeded" and pod.report), None),
        failure=failure(pods),
    )


def _attempts(found: objects.KubeJob, newest: Sequence[objects.Pod], attempt: int) -> int:
    """How many attempts there may be: this one, and as many as there are retries left; a disruption takes none."""
    left = found.spec.backoff_limit_per_index - max((pod.failures for pod in newest), default=0)
    return attempt + max(left, 0)


def _ended(found: objects.KubeJob, newest: Sequence[objects.Pod]) -> str:
    """When it succeeded."""
    ends = [pod.state.terminated.finished_at or "" for pod in newest if pod.state.terminated]
    return found.status.completion_time or max(ends, default="")


def _reason(found: objects.KubeJob, state: State) -> str:
    """Why it has ended, in the cluster's words."""
    failed = found.failing
    if failed and state == "failed":
        return f"{failed.reason}: {failed.message}"
    return f"the namespace {found.metadata.namespace} is being deleted" if found.namespace_ends else ""


def kept_by(newest: Sequence[objects.Pod]) -> tuple[str, ...]:
    """Containers, not ours, that keep pods whose launcher has ended."""
    names = (row.name for pod in newest if pod.held for row in pod.others if row.state.running)
    return tuple(dict.fromkeys(names))


def with_kept(now: View, attempt: int, result: dict[str, Any] | None, failure: dict[str, Any] | None) -> View:
    """The same, with what a run has kept on its claim where its pods are gone."""
    known = {"result": now.result or (result if now.state == "succeeded" else None), "failure": now.failure or failure}
    newest = max(now.attempt, attempt)
    return msgspec.structs.replace(now, attempt=newest, attempts=max(now.attempts, newest), **known)


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
        how = "succeeded" if ended.exit_code == 0 else f"failed (exit code {ended.exit_code})"
        return f"{how}, kept by {', '.join(kept_by([pod]))}" if pod.held else how
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
    if found.metadata.deletion_timestamp or (found.namespace_ends and not any(map(_still_runs, newest))):
        return "stopped"
    if found.spec.suspend:
        return "queued"
    return _held(found, newest) or _progress(found, newest)


def _all_ended(newest: Sequence[objects.Pod]) -> bool:
    """Whether every pod has ended, or is on a node that has gone: the Job waits for such a pod to be removed."""
    return all(pod.status.phase == "Failed" or pod.overdue for pod in newest) and any(pod.overdue for pod in newest)


def _still_runs(pod: objects.Pod) -> bool:
    return pod.state.running is not None and not pod.overdue


def _held(found: objects.KubeJob, newest: Sequence[objects.Pod]) -> State | None:
    """How a run has ended whose launchers have all, though other containers keep its pods; None if it has not.

    The Job controller waits for such pods: it neither calls the job complete nor replaces one that failed.
    """
    failed = [pod for pod in newest if pod.has_failed]
    if len(newest) < found.spec.completions or not all(pod.state.terminated for pod in newest):
        return None
    if failed:
        return "failed" if all(pod.held for pod in failed) else None
    return "succeeded" if any(pod.held for pod in newest) else None


def _progress(found: objects.KubeJob, newest: Sequence[objects.Pod]) -> State:
    ends = [pod.state.terminated for pod in newest]
    up = sum(1 for pod in newest if pod.state.running or (pod.state.terminated and not pod.state.terminated.exit_code))
    if up == found.spec.completions:
        return "running"
    again = any(pod.own_attempt > 1 for pod in newest) or any(end and end.exit_code for end in ends)
    return "restarting" if again else "pending"
