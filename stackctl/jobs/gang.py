"""A gang: a job's nodes that the cluster's own scheduler places all at once, or none of them. Pure.

Kubernetes has two ways to say so. A Job with `spec.scheduling` has its group of pods made by the Job controller; where
that is switched off, the group (PodGroup) is an object of the run, and its pods name it. Both mean the same.
"""

from __future__ import annotations

from typing import Any

from stackctl.errors import InvalidInput
from stackctl.jobs.job import Job

Manifest = dict[str, Any]

AUTO, ALWAYS, NEVER = "auto", "always", "never"
WISHES = (AUTO, ALWAYS, NEVER)
"""What `--gang` takes."""

BY_JOB = "spec.scheduling"
"""Stands where else the group and version of the PodGroup does: the Job says it."""

API_GROUP = "scheduling.k8s.io"
KIND, RESOURCE = "PodGroup", "podgroups"
FIELD = "schedulingGroup"
"""Of a pod: which group it belongs to."""


def check(wish: str, queue: str | None) -> None:
    """Refuse what is no wish, and one that a queue fulfils already.

    Raises:
        InvalidInput: It is.
    """
    if wish not in WISHES:
        raise InvalidInput(f"must be one of {', '.join(WISHES)}", where=f"--gang {wish}")
    if wish == ALWAYS and queue:
        raise InvalidInput("a queue starts all nodes together already", where="--gang always", hint="leave it out")


def fits(job: Job, *, wish: str, queue: str | None, scheduler: str | None) -> bool:
    """Whether a job may be a gang: of several nodes, in no queue, and placed by the cluster's own scheduler.

    Whose scheduler has a name of its own is asked for a gang only if a person says so.
    """
    return wish != NEVER and job.nodes > 1 and not queue and (wish == ALWAYS or not scheduler)


def policy(nodes: int) -> Manifest:
    """All or none, as Job and PodGroup say it. Each attempt is placed so: pods that have ended do not count."""
    return {"schedulingPolicy": {"gang": {"minCount": nodes}}}


def of_job(gang: str, nodes: int) -> Manifest:
    """What the Job's spec says of it."""
    return {"scheduling": policy(nodes)} if gang == BY_JOB else {}


def of_pod(gang: str, name: str) -> Manifest:
    """What the pods' spec says of it."""
    return {FIELD: {"podGroupName": name}} if gang not in ("", BY_JOB) else {}


def groups(gang: str, metadata: Manifest, nodes: int, priority: str) -> list[Manifest]:
    """The run's PodGroup, if it has one.

    Args:
        gang: Group and version in which the cluster serves it.
        priority: The pods' priority class, since the group waits and is preempted as one.
    """
    if gang in ("", BY_JOB):
        return []
    spec = {**policy(nodes), **({"priorityClassName": priority} if priority else {})}
    return [{"apiVersion": gang, "kind": KIND, "metadata": metadata, "spec": spec}]
