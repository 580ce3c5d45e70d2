from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs.kubernetes import DISRUPTIONS_NOTE, FAILURES_NOTE, INDEX_NOTE
from stackctl.runs import objects, observe

RUNNING: dict[str, Any] = {"running": {}}
PENDING: dict[str, Any] = {"waiting": {"reason": "ContainerCreating"}}


def job(*conditions: str, nodes: int = 2, **spec: Any) -> objects.KubeJob:
    rows = [{"type": kind, "status": "True"} for kind in conditions]
    row = {"metadata": {"name": "a", "namespace": "team"}, "status": {"conditions": rows, "completionTime": "then"}}
    return msgspec.convert({**row, "spec": {"completions": nodes, "backoffLimitPerIndex": 3, **spec}}, objects.KubeJob)


def exited(code: int, **report: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": json.dumps(report) if report else ""}}


def pod(node: int, state: dict[str, Any], failures: int = 0, disruptions: str = "") -> objects.Pod:
    notes = {INDEX_NOTE: str(node), FAILURES_NOTE: str(failures), DISRUPTIONS_NOTE: disruptions}
    phase = "Running" if "running" in state else "Pending" if "waiting" in state else "Failed"
    status = {"phase": phase, "containerStatuses": [{"name": "node", "state": state}]}
    name = f"a-{node}-{failures}{disruptions}"
    return msgspec.convert({"metadata": {"name": name, "annotations": notes}, "status": status}, objects.Pod)


@pytest.mark.parametrize(
    ("found", "pods", "state", "attempt"),
    [
        (job(), [], "pending", 1),
        (job(), [pod(0, PENDING), pod(1, RUNNING)], "pending", 1),
        (job(), [pod(0, RUNNING), pod(1, RUNNING)], "running", 1),
        (job(), [pod(0, RUNNING), pod(1, exited(0))], "running", 1),
        (job(), [pod(0, exited(1)), pod(1, RUNNING)], "restarting", 1),
        (job(), [pod(0, exited(1)), pod(1, exited(1)), pod(0, PENDING, 1)], "restarting", 2),
        (job(), [pod(0, exited(1)), pod(1, exited(1)), pod(0, RUNNING, 1), pod(1, RUNNING, 0, "1")], "running", 2),
        (job(), [pod(0, RUNNING, 2, "1"), pod(1, RUNNING)], "running", 4),
        (job(suspend=True), [], "queued", 1),
        (job("Complete"), [pod(0, exited(0)), pod(1, exited(0))], "succeeded", 1),
        (job("Failed"), [pod(0, exited(1)), pod(1, exited(1))], "failed", 1),
    ],
)
def test_state_and_attempt(found: objects.KubeJob, pods: list[objects.Pod], state: str, attempt: int) -> None:
    now = observe.view(found, pods)
    assert (now.state, now.attempt) == (state, attempt)


@pytest.mark.parametrize(
    ("pods", "attempt", "attempts"),
    [
        ([], 1, 4),
        ([pod(0, exited(1)), pod(1, exited(1))], 1, 4),
        ([pod(0, exited(1)), pod(1, exited(1)), pod(0, RUNNING, 1), pod(1, RUNNING, 1)], 2, 4),
        ([pod(0, RUNNING, 3, "2"), pod(1, RUNNING, 2, "3")], 6, 6),
        ([pod(0, RUNNING, 0, "7"), pod(1, RUNNING, 0, "7")], 8, 11),
    ],
)
def test_what_the_cluster_interrupts_takes_no_attempt(pods: list[objects.Pod], attempt: int, attempts: int) -> None:
    now = observe.view(job(), pods)
    assert (now.attempt, now.attempts) == (attempt, attempts)


def beside(found: objects.Pod, sidecar: dict[str, Any], ended: str = "2026-01-01T00:00:00Z") -> objects.Pod:
    """The pod with a container that is not ours, which keeps it while it runs."""
    rows = msgspec.to_builtins(found.status.container_statuses)
    over = rows[0]["state"].get("terminated")
    if over:
        over["finishedAt"] = ended
    rows.append({"name": "mesh", "state": sidecar})
    phase = "Running" if "running" in sidecar else found.status.phase
    status = msgspec.structs.replace(
        found.status, phase=phase, container_statuses=msgspec.convert(rows, list[objects.ContainerStatus])
    )
    return msgspec.structs.replace(found, status=status)


@pytest.mark.parametrize(
    ("codes", "ended", "state", "kept_by"),
    [
        ((0, 0), "2026-01-01T00:00:00Z", "succeeded", ("mesh",)),
        ((0, 0), "2999-01-01T00:00:00Z", "running", ()),
        ((3, 3), "2026-01-01T00:00:00Z", "failed", ("mesh",)),
        ((3, 3), "2999-01-01T00:00:00Z", "restarting", ()),
        ((0, None), "2026-01-01T00:00:00Z", "running", ("mesh",)),
        ((3, None), "2026-01-01T00:00:00Z", "restarting", ("mesh",)),
    ],
)
def test_a_run_whose_launchers_have_ended_does_not_run(
    codes: tuple[int | None, ...], ended: str, state: str, kept_by: tuple[str, ...]
) -> None:
    pods = [
        beside(pod(node, RUNNING if code is None else exited(code, steps=5)), RUNNING, ended)
        for node, code in enumerate(codes)
    ]
    now = observe.view(job(), pods)
    assert (now.state, now.kept_by) == (state, kept_by)
    if state == "succeeded":
        assert (now.result, now.ended) == ({"steps": 5}, "then")
    if kept_by and codes[0] is not None:
        assert now.nodes[0].state.endswith("kept by mesh")


def test_a_failed_node_that_nothing_keeps_is_replaced() -> None:
    assert observe.view(job(), [beside(pod(0, exited(3)), RUNNING), pod(1, exited(3))]).state == "restarting"


def test_a_run_ends_with_its_namespace() -> None:
    leaving = msgspec.structs.replace(job(), namespace_ends=True)
    now = observe.view(leaving, [pod(0, exited(143)), pod(1, exited(143))])
    assert (now.state, now.reason) == ("stopped", "the namespace team is being deleted")
    assert observe.view(leaving, [pod(0, RUNNING), pod(1, exited(143))]).state == "restarting", "it has its grace still"


def test_the_result_is_node_0s_last_message_of_a_success() -> None:
    pods = [pod(0, exited(0, steps=5)), pod(1, exited(0))]
    assert observe.view(job("Complete"), pods).result == {"steps": 5}
    assert observe.view(job(), pods).result is None


def test_the_newest_failure_that_names_a_rank_is_the_failure() -> None:
    def report(attempt: int, reason: str) -> dict[str, Any]:
        return {"attempt": attempt, "reason": reason, "sentence": reason}

    pods = [
        pod(0, exited(1, **report(1, "rank-failed"))),
        pod(0, exited(75, **report(2, "node-lost")), 1),
        pod(1, exited(1, **report(2, "rank-failed")), 1),
    ]
    assert observe.failure(pods) == report(2, "rank-failed")
    assert observe.failure([]) is None


def test_what_a_node_does() -> None:
    assert observe.doing(pod(0, exited(137))) == "failed (exit code 137)"
    assert observe.doing(pod(0, exited(0))) == "succeeded"
    assert observe.doing(pod(0, {"waiting": {"reason": "ErrImagePull"}})) == "cannot pull its image"
    assert observe.doing(pod(0, {"waiting": {"reason": "CreateContainerError"}})) == "CreateContainerError"
    assert observe.doing(pod(0, PENDING)) == "pending"


def test_a_job_of_others_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not one of stackctl's"):
        observe.job_of(job())


@pytest.mark.parametrize(
    ("deleted", "state"), [("2026-01-01T00:00:00Z", "failed"), ("2999-01-01T00:00:00Z", "restarting")]
)
def test_a_job_that_has_failed_does_not_wait_for_a_pod_that_cannot_end(deleted: str, state: str) -> None:
    """Its node has gone; a pod that still has time may end in another way."""
    lost = pod(1, RUNNING)
    lost = msgspec.structs.replace(lost, metadata=msgspec.structs.replace(lost.metadata, deletion_timestamp=deleted))
    assert observe.view(job("FailureTarget"), [pod(0, exited(75)), lost]).state == state
    assert observe.view(job(), [pod(0, exited(75)), lost]).state == "restarting"
