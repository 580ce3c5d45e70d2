from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from stackctl.jobs.kubernetes import INDEX_NOTE, RUN_LABEL
from stackctl.runs import node_failures
from stackctl.runs.node_failures import NodeFailure
from stackctl.runs.objects import Pod
from stackrt.contract import Reason

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
LATELY, LONG_AGO = "2030-01-02T11:00:00Z", "2030-01-01T11:00:00Z"
RANK = {"reason": Reason.RANK_FAILED, "sentence": "rank 1 failed", "node": 1, "rank": 1}


def pod(run: str, index: int = 0, host: str = "", report: Any = None, when: str = LATELY, **status: Any) -> Pod:
    ended = {"exitCode": 1, "message": json.dumps(report) if report else "", "finishedAt": when}
    ended |= status.pop("ended", {})
    about = {"name": f"{run}-{index}", "labels": {RUN_LABEL: run}, "annotations": {INDEX_NOTE: str(index)}}
    containers = [{"name": "node", "state": {"terminated": ended}}]
    row = {"metadata": about, "spec": {"nodeName": host or f"node-{index}"}}
    return msgspec.convert({**row, "status": {"phase": "Failed", "containerStatuses": containers, **status}}, Pod)


def disrupted(reason: str) -> Pod:
    return pod("a", conditions=[{"type": "DisruptionTarget", "status": "True", "reason": reason}])


def failures(*pods: Pod) -> list[NodeFailure]:
    return node_failures.failures(pods, NOW)


def test_only_the_node_that_failed_first_is_counted() -> None:
    assert failures(pod("a", 0, report=RANK), pod("a", 1)) == [NodeFailure("node-1", "a", "rank failed")]


@pytest.mark.parametrize(
    ("failed", "why"),
    [
        (pod("a", 1, report={**RANK, "reason": Reason.NODE_LOST}), "node lost"),
        (
            disrupted("DeletionByPodGC"),
            "node lost",
        ),
        (pod("a", reason="NodeLost"), "node lost"),
        (pod("a", ended={"reason": "StartError", "message": "nvml error: driver not loaded"}), "not started"),
        (pod("a", ended={"reason": "StartError", "message": "exec: executable file not found"}), ""),
        (pod("a", ended={"reason": "OOMKilled"}), ""),
        (pod("a", report={**RANK, "reason": Reason.CONFIG, "node": 0}), ""),
        (disrupted("EvictionByEvictionAPI"), ""),
        (pod("a", 1, report=RANK, when=LONG_AGO), ""),
        (pod("a"), ""),
    ],
)
def test_what_a_run_brought_upon_itself_is_not_counted(failed: Pod, why: str) -> None:
    assert [row.why for row in failures(failed)] == ([why] if why else [])


def test_a_node_is_avoided_once_two_runs_have_failed_there() -> None:
    once = [pod("a", 1, report=RANK), pod("a", 1, report={**RANK, "attempt": 2})]
    assert node_failures.avoided(failures(*once)) == []
    found = failures(
        *once, pod("b", 1, report={**RANK, "reason": Reason.NODE_LOST}), pod("c", 1, "node-9", report=RANK)
    )
    assert node_failures.avoided(found) == ["node-1"]
    assert node_failures.told(found, ["node-9", "node-1", "node-1"]) == [
        "node-1 has failed 2 runs in the last day: a (rank failed), b (node lost)"
    ]
