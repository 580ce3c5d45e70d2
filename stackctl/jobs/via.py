"""What gives a cluster a job: its own Job, or an object of a manager that makes that very Job. Pure.

A cluster's rules may want JobSets or TrainJobs. Both hold the Job as a template, so pods, attempts and results are the
same, and the Service that names the pods is the manager's; its own restarts and ranks are not used.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs.job import Job

Manifest = dict[str, Any]

JOB, JOBSET, TRAINJOB = "job", "jobset", "trainjob"

REPLICATED = "node"
"""What a JobSet calls its one Job, whose name is made of it; and Trainer the container that trains, as we do."""

RUNTIME = "TrainingRuntime"
"""A TrainJob names one, and it must be there before."""

JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Of each Job that a JobSet has made."""

MOST_NAME = 63
_SUFFIX = "-xxxxx"
"""What Kubernetes puts behind a pod's name. The manager counts it."""


class Manager(msgspec.Struct, frozen=True):
    """A kind of object that stands for a job, and who looks after it.

    `needs` are the API groups that must be served, its own first. `install` says how to get it. `beside` are kinds of
    its group that belong to a run and that nothing removes with it, and `makes` what it makes of it, as quotas count.
    """

    kind: str
    needs: tuple[str, ...]
    install: str
    beside: tuple[str, ...] = ()
    makes: tuple[str, ...] = ("jobs.batch", "services")

    @property
    def group(self) -> str:
        """Its API group."""
        return self.needs[0]


_JOBSETS = "jobset.x-k8s.io"

MANAGERS = {
    JOBSET: Manager("JobSet", (_JOBSETS,), "https://jobset.sigs.k8s.io/docs/installation"),
    TRAINJOB: Manager(
        "TrainJob",
        ("trainer.kubeflow.org", _JOBSETS),
        "https://www.kubeflow.org/docs/components/trainer/operator-guides/installation",
        (RUNTIME,),
        (f"jobsets.{_JOBSETS}", "jobs.batch", "services"),
    ),
}

VIAS = (JOB, *MANAGERS)
"""What `--via` takes."""


def job_name(name: str, via: str) -> str:
    """The name of the Job that makes a run's pods."""
    return name if via == JOB else f"{name}-{REPLICATED}-0"


def run_name(job: str) -> str:
    """The name of the run whose manager has made a Job of this name; empty if none can have."""
    name = job.removesuffix(f"-{REPLICATED}-0")
    return name if name != job else ""


def check(job: Job, via: str) -> None:
    """Refuse what is no way to a cluster, and a name that is too long to go through a manager.

    Raises:
        InvalidInput: It is.
    """
    if via not in VIAS:
        raise InvalidInput(f"must be one of {', '.join(VIAS)}", where=f"--via {via}")
    longest = f"{job_name(job.name, via)}-{job.nodes - 1}{_SUFFIX}"
    if via != JOB and len(longest) > MOST_NAME:
        most = len(job.name) - (len(longest) - MOST_NAME)
        said = f"pods of a {MANAGERS[via].kind} have longer names: {most} characters at most"
        raise InvalidInput(said, where=f"--name {job.name}")


def wrapped(job: Manifest, via: str, api: str) -> list[Manifest]:
    """The objects that give a cluster a Job: the one that stands for the run, before it what must be there first.

    Args:
        job: The Job as a cluster would get it.
        api: Group and version in which the manager's kind is served.
    """
    if via == JOB:
        return [job]
    spec, about = dict(job["spec"]), job["metadata"]
    held = {"suspend": True} if spec.pop("suspend", False) else {}
    # Trainer makes the JobSet of a TrainJob that has failed anew, once it is gone; of a finished one the Job may go.
    kept = {"ttlSecondsAfterFinished": spec.pop("ttlSecondsAfterFinished")} if via == JOBSET else {}
    inner = {"metadata": {"labels": _plain(about["labels"])}, "spec": spec}
    row = {"name": REPLICATED, "replicas": 1, "template": inner}
    # As the Service of a run that has its own Job: nodes look each other up before they are ready.
    network = {"enableDNSHostnames": True, "publishNotReadyAddresses": True, "subdomain": about["name"]}
    jobs = {"network": network, "replicatedJobs": [row], **kept}
    top = {"apiVersion": api, "kind": MANAGERS[via].kind, "metadata": about}
    if via == JOBSET:
        return [{**top, "spec": {**jobs, **held}}]
    plain = {"name": about["name"], "namespace": about["namespace"], "labels": _plain(about["labels"])}
    runtime = {"apiVersion": api, "kind": RUNTIME, "metadata": plain, "spec": {"template": {"spec": jobs}}}
    reference = {"apiGroup": MANAGERS[via].group, "kind": RUNTIME, "name": about["name"]}
    return [runtime, {**top, "spec": {"runtimeRef": reference, **held}}]


def _plain(labels: dict[str, str]) -> dict[str, str]:
    """Labels without a queue's: it is the run that waits in it, and nothing of what the run is made of."""
    return {key: value for key, value in labels.items() if not key.startswith("kueue.x-k8s.io/")}


def template_of(manifest: Manifest) -> Manifest | None:
    """The Job's spec in an object that holds one; None if it holds none."""
    spec = manifest.get("spec") or {}
    if manifest.get("kind") == RUNTIME:
        spec = (spec.get("template") or {}).get("spec") or {}
    rows = spec.get("replicatedJobs")
    if rows:
        found: Manifest = rows[0]["template"]["spec"]
        return found
    return spec if manifest.get("kind") == "Job" else None
