from __future__ import annotations

from typing import Any

from stackctl.runs import evidence, explain, managers, observe
from stackctl.runs.evidence import Facts
from stackctl.runs.objects import Event, EventSource
from tests.unit.stackctl.jobs.test_via import plan


def top(*conditions: str, through: str = "jobset", **given: Any) -> dict[str, Any]:
    made = plan(through, **given)
    found = made[-3]
    found["metadata"] |= {"uid": "top", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {**found, "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions]}}


def child(*conditions: str) -> dict[str, Any]:
    rows = [{"type": kind, "status": "True"} for kind in conditions]
    about = {"name": "a-node-0", "namespace": "team", "uid": "child"}
    return {"metadata": about, "spec": {"completions": 2, "backoffLimitPerIndex": 3}, "status": {"conditions": rows}}


def test_a_run_is_its_job_by_the_name_of_what_stands_for_it() -> None:
    found = managers.as_job(top(), child("Complete"), "jobset")
    assert (found.metadata.name, found.metadata.uid, found.own.name, found.own.uid) == ("a", "top", "a-node-0", "child")
    assert observe.view(found, []).state == "succeeded"


def test_a_run_without_its_job() -> None:
    found = managers.as_job(top(), None, "jobset")
    assert (observe.view(found, []).state, found.spec.completions) == ("pending", 2)
    assert found.spec.template["spec"]["containers"], "what is on its claim can be read"
    event = Event(involved_object=EventSource("JobSet", "a"), reason="x", type="Warning", message="quota of JobSets")
    why = explain.explain(Facts(found, [], [event]))
    assert (why.cause, list(why.evidence)) == ("no job", ["quota of JobSets"])
    assert "is there as a JobSet, of which nobody has made a Job" in why.sentence


def test_a_run_that_waits_in_a_queue_before_its_job_is_made() -> None:
    found = managers.as_job(top(queue="team"), None, "jobset")
    assert observe.view(found, []).state == "queued"
    assert explain.explain(Facts(found, [])).cause == "queued"


def test_what_a_manager_says_where_the_job_is_gone_or_never_came() -> None:
    done = managers.as_job(top("Completed"), None, "jobset")
    assert observe.view(done, []).state == "succeeded"
    refused = managers.as_job(top("Failed", through="trainjob"), None, "trainjob", plan("trainjob")[0])
    assert (observe.view(refused, []).state, refused.spec.completions) == ("failed", 2)
    assert evidence.unmade(Facts(refused, [])) is None
    ended = managers.as_job(top("Failed"), child(), "jobset")
    assert observe.view(ended, []).state == "failed", "what the manager says counts where the Job does not say"
