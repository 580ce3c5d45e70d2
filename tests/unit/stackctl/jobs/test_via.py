from __future__ import annotations

from typing import Any

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import kubernetes, via
from stackctl.jobs.kubernetes import DIGEST_NOTE, JOB_NOTE
from tests.unit.stackctl.jobs.test_kubernetes import job, placed

APIS = {"job": "", "jobset": "jobset.x-k8s.io/v9", "trainjob": "trainer.kubeflow.org/v9"}


def plan(through: str, **given: Any) -> list[dict[str, Any]]:
    made = job(**given.pop("job", {}))
    return kubernetes.manifests(made, placed(made, via=through, api=APIS[through], **given), token="t" * 32)


@pytest.mark.parametrize(
    ("through", "kinds"),
    [
        ("job", ["Job"]),
        ("jobset", ["JobSet"]),
        ("trainjob", ["TrainingRuntime", "TrainJob"]),
    ],
)
def test_what_stands_for_the_run_owns_what_is_behind_it(through: str, kinds: list[str]) -> None:
    made = plan(through)
    names = ["Service"] if through == "job" else []
    assert [row["kind"] for row in made] == [*kinds, "Secret", *names, "NetworkPolicy"]
    number = kubernetes.run_of(made)
    assert number == len(kinds) - 1
    owner = kubernetes.owned(made[-1], made[number], "uid")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["apiVersion"]) == (kinds[-1], APIS[through] or "batch/v1")
    digests = {row["metadata"]["annotations"][DIGEST_NOTE] for row in made[: number + 1]}
    assert len(digests) == 1, "what is there before is known to be of this very run"


@pytest.mark.parametrize("through", ["jobset", "trainjob"])
def test_the_pods_are_the_same(through: str) -> None:
    """But for the name of node 0, which is that of the Job."""
    mine, plain = kubernetes.pod_of(plan(through)[0]), kubernetes.pod_of(plan("job")[0])
    rows = {row["name"]: row for row in mine["containers"][0]["env"]}
    assert rows["STACK_RENDEZVOUS"]["value"].startswith("a-node-0-0.a:")
    rows["STACK_RENDEZVOUS"]["value"] = "a-0.a" + rows["STACK_RENDEZVOUS"]["value"][len("a-node-0-0.a") :]
    assert mine == plain
    held = via.template_of(plan(through)[0])
    assert held is not None
    own = plan("job")[0]["spec"]
    assert {**held, "template": own["template"], "ttlSecondsAfterFinished": 604_800} == own


@pytest.mark.parametrize("through", ["jobset", "trainjob"])
def test_the_manager_names_the_pods_as_the_service_of_a_job_does(through: str) -> None:
    first = plan(through)[0]
    jobs = first["spec"] if through == "jobset" else first["spec"]["template"]["spec"]
    service = next(row for row in plan("job") if row["kind"] == "Service")
    assert service["spec"]["publishNotReadyAddresses"]
    network = {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": service["metadata"]["name"]}
    assert jobs["network"] == network
    assert kubernetes.pod_of(first)["subdomain"] == network["subdomain"]


def test_what_has_ended_goes_where_nothing_starts_it_anew() -> None:
    """Trainer would make a JobSet that is gone once more, had it failed."""
    [jobset, *_], [runtime, *_] = plan("jobset"), plan("trainjob")
    assert jobset["spec"]["ttlSecondsAfterFinished"] == 604_800
    assert "ttlSecondsAfterFinished" not in str(jobset["spec"]["replicatedJobs"])
    assert "ttlSecondsAfterFinished" not in runtime["spec"]["template"]["spec"]
    held = via.template_of(runtime)
    assert held is not None
    assert held["ttlSecondsAfterFinished"] == 604_800


@pytest.mark.parametrize("through", ["jobset", "trainjob"])
def test_it_is_the_run_that_waits_in_a_queue(through: str) -> None:
    made = plan(through, queue="team")
    run = made[kubernetes.run_of(made)]
    assert run["spec"]["suspend"] is True
    assert run["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    held = via.template_of(made[0])
    assert held is not None
    assert "suspend" not in held
    jobs = made[0]["spec"] if through == "jobset" else made[0]["spec"]["template"]["spec"]
    assert "kueue.x-k8s.io/queue-name" not in jobs["replicatedJobs"][0]["template"]["metadata"]["labels"]


def test_the_job_is_noted_once() -> None:
    """It may be 252 KiB long."""
    assert [JOB_NOTE in str(row) for row in plan("trainjob")] == [False, True, False, False]


def test_a_name_that_managers_cannot_take_is_refused() -> None:
    assert plan("job", job={"name": "a" * 50})
    with pytest.raises(InvalidInput, match="pods of a JobSet have longer names: 48 characters at most"):
        plan("jobset", job={"name": "a" * 50})
    with pytest.raises(InvalidInput, match="--via pod: must be one of job, jobset, trainjob"):
        kubernetes.manifests(job(), placed(job(), via="pod"), token="")


def test_names_of_jobs_and_runs() -> None:
    assert via.run_name(via.job_name("a", "jobset")) == "a"
    assert via.run_name(via.job_name("a", "job")) == ""
