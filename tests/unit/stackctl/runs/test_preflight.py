from __future__ import annotations

from typing import Any

import pytest

from stackctl.runs.preflight import quota_problem

NEED = {"nvidia.com/gpu": "8", "memory": "64Gi"}


def quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


@pytest.mark.parametrize(
    ("hard", "used", "said"),
    [
        ({"requests.nvidia.com/gpu": "16"}, {}, ""),
        ({"requests.nvidia.com/gpu": "16"}, {"requests.nvidia.com/gpu": "4"}, "12 of 16 left, and the job needs 16"),
        ({"limits.memory": "100Gi"}, {}, "limits.memory 100Gi of 100Gi left, and the job needs 128Gi"),
        ({"pods": "10"}, {"pods": "9"}, "pods 1 of 10 left, and the job needs 2"),
        ({"count/jobs.batch": "3"}, {"count/jobs.batch": "3"}, "0 of 3 left, and the job needs 1"),
        ({"requests.cpu": "64"}, {}, "use --cpu"),
        ({"persistentvolumeclaims": "0"}, {}, ""),
    ],
)
def test_quota(hard: dict[str, str], used: dict[str, str], said: str) -> None:
    problem = quota_problem(quota(hard, used), NEED, nodes=2)
    assert said in problem
    assert bool(problem) == bool(said)


def test_a_quota_for_other_pods_does_not_count() -> None:
    assert quota_problem(quota({"pods": "0"}, scopes=["BestEffort"]), NEED, nodes=2) == ""
