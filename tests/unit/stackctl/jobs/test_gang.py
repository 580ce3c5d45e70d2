from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import gang, kubernetes, profiles
from stackctl.jobs import job as jobs
from stackctl.jobs.job import Job
from stackctl.jobs.placement import place

GROUP = "scheduling.k8s.io/v1beta1"


def job(nodes: int = 2) -> Job:
    return jobs.make(name="a", workload="gpt", nodes=nodes, gpus=8)


def plan(**given: Any) -> list[dict[str, Any]]:
    made = job()
    placement = place(made, namespace="team", profile=profiles.load("generic"), image="mine:1", **given)
    return kubernetes.manifests(made, placement, token="t")


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    return kubernetes.pod_of(manifest)


@pytest.mark.parametrize("how", [gang.BY_JOB, GROUP])
def test_a_gang_is_what_kubernetes_takes(how: str) -> None:
    for manifest in plan(gang=how, priority="high"):
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_a_job_says_it_by_itself_where_it_can() -> None:
    rows = plan(gang=gang.BY_JOB)
    assert [row["kind"] for row in rows] == ["Job", "Secret", "Service", "NetworkPolicy"]
    assert rows[0]["spec"]["scheduling"] == {"schedulingPolicy": {"gang": {"minCount": 2}}}
    assert "schedulingGroup" not in pod(rows[0])


def test_else_its_pods_name_a_group_that_belongs_to_the_run() -> None:
    rows = plan(gang=GROUP, priority="high")
    assert [row["kind"] for row in rows] == ["Job", "PodGroup", "Secret", "Service", "NetworkPolicy"]
    assert "scheduling" not in rows[0]["spec"]
    assert pod(rows[0])["schedulingGroup"] == {"podGroupName": rows[1]["metadata"]["name"]}
    policy = {"schedulingPolicy": {"gang": {"minCount": 2}}}
    assert rows[1]["spec"] == {**policy, "priorityClassName": "high"}, "the group waits in its pods' place"
    assert kubernetes.run_of(rows) == 0, "and so the Job owns the group"


def test_through_a_manager_the_pods_are_the_same() -> None:
    rows = plan(gang=GROUP, via="jobset", api="jobset.x-k8s.io/v1alpha2")
    assert [row["kind"] for row in rows][:2] == ["JobSet", "PodGroup"]
    assert pod(rows[0])["schedulingGroup"] == {"podGroupName": "a"}


def test_without_one_nothing_is_said() -> None:
    assert "scheduling" not in str(plan())


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"nodes": 1}, False),
        ({"queue": "team"}, False),
        ({"scheduler": "volcano"}, False),
        ({"scheduler": "mine", "wish": gang.ALWAYS}, True),
        ({"wish": gang.NEVER}, False),
    ],
)
def test_several_nodes_in_no_queue_are_a_gang(given: dict[str, Any], fits: bool) -> None:
    row = {"wish": gang.AUTO, "queue": None, "scheduler": None, **given}
    assert gang.fits(job(row.pop("nodes", 2)), **row) is fits


def test_what_cannot_be_wished_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be one of auto, always, never"):
        gang.check("maybe", None)
    with pytest.raises(InvalidInput, match="a queue starts all nodes together already"):
        gang.check(gang.ALWAYS, "team")
