"""Why a run waits in its queue, by Kueue's objects; tests/cluster/test_queue.py has the real one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stackctl.runs import queues
from stackctl.runs.queue_objects import ClusterQueue, LocalQueue, Workload
from stackctl.runs.queues import Lacking, Picture

GPU = "nvidia.com/gpu"
LACKING = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, "
    "4 more needed"
)


def cluster_queue(quota: dict[str, Any], reserved: Any = None, **spec: Any) -> ClusterQueue:
    resources = [{"name": GPU, **quota}, {"name": "memory", "nominalQuota": "1Ti"}]
    group = {"coveredResources": [GPU, "memory"], "flavors": [{"name": "default", "resources": resources}]}
    given = [{"name": "default", "resources": [{"name": GPU, "total": reserved}]}] if reserved else []
    row = {"metadata": {"name": "team"}, "spec": {"resourceGroups": [group], **spec}}
    return msgspec.convert({**row, "status": {"flavorsReservation": given}}, ClusterQueue)


def local_queue(name: str, shared: str = "team", **spec: Any) -> LocalQueue:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"clusterQueue": shared, **spec}}, LocalQueue)


def workload(run: str, *conditions: tuple[str, str, str], holds: int = 0, created: str = "1", **spec: Any) -> Workload:
    rows = [{"type": kind, "status": status, "message": message} for kind, status, message in conditions]
    usage = {"flavors": {GPU: "default"}, "resourceUsage": {GPU: holds}}
    admission = {"clusterQueue": "team", "podSetAssignments": [usage]} if holds else None
    about = {
        "name": f"job-{run}",
        "creationTimestamp": created,
        "ownerReferences": [{"name": run, "uid": run}],
    }
    row = {"metadata": about, "spec": {"queueName": "team", **spec}}
    return msgspec.convert({**row, "status": {"conditions": rows, "admission": admission}}, Workload)


def waits(run: str, message: str = LACKING, **given: Any) -> Workload:
    return workload(run, ("QuotaReserved", "False", message), **given)


def holds(run: str, amount: int, **given: Any) -> Workload:
    return workload(run, ("QuotaReserved", "True", ""), holds=amount, **given)


def standing(*workloads: Workload, shared: ClusterQueue | None = None, **local: Any) -> str:
    picture = Picture("team", [local_queue("team", **local), local_queue("elsewhere", "other")], workloads, shared)
    return queues.standing(picture, "mine")[0]


TWO_BEFORE = "2 runs are before it"
PREEMPTED = "Preempted to accommodate a workload (UID: x, JobUID: b) due to prioritization in the ClusterQueue"
NEEDS = "needs 4 nvidia.com/gpu more in flavor default of queue team"


@pytest.mark.parametrize(
    ("workloads", "said"),
    [
        ([waits("mine")], NEEDS),
        ([waits("mine"), holds("q1", 8)], f"{NEEDS}; q1 holds 8"),
        ([waits("mine"), holds("q1", 4), holds("q2", 8)], f"{NEEDS}; q2 holds 8, q1 holds 4"),
        ([waits("mine", created="2"), waits("a"), waits("b", created="3")], f"{NEEDS}; 1 run is before it"),
        ([waits("mine"), waits("a", created="2", priority=9), waits("b", priority=5)], f"{NEEDS}; {TWO_BEFORE}"),
        ([waits("mine", created="2"), waits("a", queueName="elsewhere")], NEEDS),
        ([waits("mine", created="2"), waits("a", active=False)], NEEDS),
        ([waits("mine", 'topology "racks" doesn\'t allow to fit any')], 'topology "racks" doesn\'t allow to fit any'),
        ([workload("mine", created="2"), waits("a")], "queue team has not come to it yet; 1 run is before it"),
        ([waits("a")], "Kueue has not seen it in the queue team yet: its manager may not run"),
        ([holds("mine", 8)], "it has its quota, and waits for its admission checks"),
        (
            [workload("mine", ("Evicted", "True", "exceeded the limit"), active=False)],
            "Kueue has given it up: exceeded the limit",
        ),
        (
            [workload("mine", ("QuotaReserved", "False", LACKING), ("Preempted", "True", PREEMPTED)), holds("b", 8)],
            f"{NEEDS}; b holds 8; b has taken its place",
        ),
    ],
)
def test_why_a_run_waits(workloads: list[Workload], said: str) -> None:
    assert standing(*workloads) == said


def test_what_other_namespaces_hold_is_told_as_one() -> None:
    shared = cluster_queue({"nominalQuota": 16}, reserved="12")
    assert standing(waits("mine"), holds("q1", 8), shared=shared) == f"{NEEDS}; q1 holds 8, other namespaces hold 4"


def test_a_stopped_queue_says_so() -> None:
    stopped = "nothing is admitted from queue team: it is stopped"
    assert standing(waits("mine"), stopPolicy="Hold") == stopped
    assert standing(waits("mine"), shared=cluster_queue({}, stopPolicy="HoldAndDrain")) == stopped


def test_what_may_not_be_seen_is_said() -> None:
    assert queues.standing(Picture("team"), "mine")[0] == "you may not list workloads, which tell why"
    seen = Picture("team", workloads=[waits("mine", created="2"), waits("a"), holds("q1", 8)])
    assert queues.standing(seen, "mine")[0] == f"{NEEDS}; 1 run is before it; q1 holds 8"


def test_kueues_own_words_are_the_evidence() -> None:
    picture = Picture("team", [local_queue("team")], [waits("mine")])
    assert queues.standing(picture, "mine")[1] == [LACKING]


def test_every_resource_that_is_lacking_is_read() -> None:
    more = f"{LACKING}, insufficient unused quota for memory in flavor big, 2Gi more needed. Pending the preemption"
    assert queues.told_lacking(more) == [Lacking("4", GPU, "default"), Lacking("2Gi", "memory", "big")]


@pytest.mark.parametrize(
    ("quota", "spec", "need", "said"),
    [
        ({"nominalQuota": 16}, {}, {GPU: "8"}, ""),
        ({"nominalQuota": 12}, {}, {GPU: "8"}, "16 nvidia.com/gpu wanted, 12 at most in flavor default"),
        ({"nominalQuota": 12}, {}, {GPU: "1", "cpu": "1"}, "the queue team has no quota for cpu"),
        ({"nominalQuota": "12"}, {}, {GPU: "1", "memory": "900Gi"}, "1.758Ti memory wanted, 1Ti at most"),
        ({"nominalQuota": 12, "borrowingLimit": 2}, {}, {GPU: "8"}, "12 at most"),
        ({"nominalQuota": 12, "borrowingLimit": 2}, {"cohortName": "all"}, {GPU: "8"}, "14 at most"),
        ({"nominalQuota": 12, "borrowingLimit": 4}, {"cohort": "all"}, {GPU: "8"}, ""),
        ({"nominalQuota": 0}, {"cohortName": "all"}, {GPU: "8"}, ""),
        ({"nominalQuota": 12}, {"resourceGroups": []}, {}, ""),
    ],
)
def test_what_a_queue_can_never_hold(
    quota: dict[str, Any], spec: dict[str, Any], need: dict[str, str], said: str
) -> None:
    problem = queues.never(cluster_queue(quota, **spec), need, nodes=2)
    assert said in problem
    assert bool(problem) == bool(said)


def test_one_flavor_must_hold_all_that_a_group_covers() -> None:
    flavors = [
        {"name": name, "resources": [{"name": GPU, "nominalQuota": gpus}, {"name": "memory", "nominalQuota": memory}]}
        for name, gpus, memory in (("many", 16, "1Gi"), ("large", 1, "1Ti"))
    ]
    shared = cluster_queue({}, resourceGroups=[{"coveredResources": [GPU, "memory"], "flavors": flavors}])
    assert queues.never(shared, {GPU: "8", "memory": "1Gi"}, nodes=2) == (
        "the queue team can never hold it: 2Gi memory wanted, 1Gi at most in flavor many; "
        "16 nvidia.com/gpu wanted, 1 at most in flavor large"
    )
    assert queues.never(shared, {GPU: "8"}, nodes=2) == ""


def test_pods_may_have_a_quota_too() -> None:
    group = {
        "coveredResources": ["pods"],
        "flavors": [{"name": "any", "resources": [{"name": "pods", "nominalQuota": 1}]}],
    }
    shared = cluster_queue({}, resourceGroups=[group])
    assert "2 pods wanted, 1 at most" in queues.never(shared, {}, nodes=2)
