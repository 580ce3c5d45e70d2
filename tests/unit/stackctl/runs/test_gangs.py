"""Which way a cluster is told of a gang, by what it answers; tests/cluster/test_gang_api.py has the real one."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import MissingHere
from stackctl.jobs import gang
from stackctl.jobs import job as jobs
from stackctl.runs import gangs

GROUP = "scheduling.k8s.io/v1beta1"
JOB = jobs.make(name="a", workload="gpt", nodes=2, gpus=8)


class Answering:
    """A cluster that serves PodGroups or not, and Jobs and JobSets that know of gangs or not."""

    host, kept, known, allowed = "https://there", False, True, True

    def __init__(self, **given: Any) -> None:
        self.__dict__ |= {"versions": ["scheduling.k8s.io/v1", GROUP], **given}

    def read(self, path: str, of: type[Any]) -> Any:
        if path == "apis/scheduling.k8s.io":
            return msgspec.convert({"versions": [{"groupVersion": row} for row in self.__dict__["versions"]]}, of)
        names = {GROUP: ["podgroups", "podgroups/status"]}.get(path.removeprefix("apis/"), ["priorityclasses"])
        return msgspec.convert({"resources": [{"name": name} for name in names]}, of)

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Any:
        if manifest["kind"] == "SelfSubjectAccessReview":
            return {"status": {"allowed": self.allowed}}, []
        assert dry_run
        if manifest["kind"] == "Job":
            spec = {key: value for key, value in manifest["spec"].items() if key != "scheduling" or self.kept}
            return {"spec": spec}, []
        if not self.known:
            raise ApiError('strict decoding error: unknown field "spec.replicatedJobs[0].…schedulingGroup"', status=400)
        raise ApiError("something else is wrong with the probe", status=422)


def chosen(wish: str = gang.AUTO, via: str = "job", **given: Any) -> tuple[str, list[str]]:
    told: list[str] = []
    cluster, api = cast(Cluster, Answering(**given)), "jobset.x-k8s.io/v1alpha2"
    return gangs.choose(cluster, JOB, told.append, wish=wish, via=via, namespace="team", api=api), told


def test_the_job_says_it_where_it_can() -> None:
    said = "note: the cluster places all 2 nodes at once, or none: by the Job's spec.scheduling"
    assert chosen(kept=True, allowed=False) == (gang.BY_JOB, [said]), "which takes no right"


def test_else_the_run_has_a_group_in_the_version_that_is_served() -> None:
    assert chosen() == (GROUP, [f"note: the cluster places all 2 nodes at once, or none: by a PodGroup of {GROUP}"])
    assert chosen(via="jobset", kept=True)[0] == GROUP, "what has the field of a Job is not asked of a manager"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"allowed": False}, "the cluster places gangs, and you may not create podgroups (k8s/base/gangs.yaml)"),
        ({"via": "jobset", "known": False}, "the cluster's JobSet cannot say that its pods are a gang"),
    ],
)
def test_what_keeps_it_from_one_is_said(given: dict[str, Any], why: str) -> None:
    assert chosen(**given) == ("", [f"note: {why}; nodes get their places one by one"])
    with pytest.raises(MissingHere) as refused:
        chosen(gang.ALWAYS, **given)
    assert refused.value.message == why


def test_a_cluster_that_knows_of_no_gangs_is_passed_over() -> None:
    older: dict[str, Any] = {"versions": ["scheduling.k8s.io/v1"]}
    assert chosen(**older) == ("", [])
    with pytest.raises(MissingHere, match="serves no PodGroup"):
        chosen(gang.ALWAYS, **older)
