"""Runs that reach their cluster through a manager's object, which makes their Job: find one, and see it as its Job."""

from __future__ import annotations

from typing import Any

import msgspec

from stackctl.engines.kube import Cluster, Object
from stackctl.engines.kube_errors import where_allowed
from stackctl.errors import MissingHere
from stackctl.jobs import via as vias
from stackctl.jobs.kubernetes import RUN_LABEL
from stackctl.jobs.via import JOB, MANAGERS
from stackctl.runs.objects import Condition, JobStatus, KubeJob, Metadata

ENDS = {"Completed": "Complete", "Complete": "Complete", "Failed": "Failed"}
"""Conditions that say that a run has ended, of Jobs and of the managers' objects: as a Job calls them."""


class _Spec(msgspec.Struct, frozen=True):
    suspend: bool = False


class _Status(msgspec.Struct, frozen=True):
    conditions: list[Condition] = []


class _Managed(msgspec.Struct, frozen=True):
    """What of a manager's object tells how it fares."""

    metadata: Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()


def api(cluster: Cluster, via: str) -> str:
    """The group and version in which the cluster serves what gives it a job.

    Raises:
        MissingHere: It does not.
    """
    if via not in MANAGERS:
        return ""
    for group in MANAGERS[via].needs:
        if not cluster.served(group):
            raise MissingHere(
                f"the cluster at {cluster.host} serves no {group}, which a {MANAGERS[via].kind} takes",
                where=f"--via {via}",
                hint=f"have it installed: {MANAGERS[via].install}; without --via a job needs nothing that is installed",
            )
    return cluster.served(MANAGERS[via].group)


def kind(cluster: Cluster, via: str) -> str:
    """The kind of object that stands for a run, with group and version; a manager's must be served."""
    return "Job" if via == JOB else f"{cluster.served(MANAGERS[via].group)}/{MANAGERS[via].kind}"


def beside(cluster: Cluster) -> list[str]:
    """Kinds, as `kind` has them, of what belongs to runs here and that nothing removes with them."""
    served = ((cluster.served(row.group), row) for row in MANAGERS.values() if row.beside)
    return [f"{api}/{name}" for api, row in served if api for name in row.beside]


def find(cluster: Cluster, name: str, namespace: str) -> tuple[str, Object] | None:
    """What stands for the run of a name, if a manager's object does, and through which; as far as one may look.

    A TrainJob makes a JobSet of its name, so it is asked for first.
    """
    for via in reversed(MANAGERS):
        with where_allowed():
            found = cluster.get(kind(cluster, via), name, namespace) if cluster.served(MANAGERS[via].group) else None
            if found is not None and RUN_LABEL in (found["metadata"].get("labels") or {}):
                return via, found
    return None


def look(cluster: Cluster, via: str, name: str, namespace: str) -> KubeJob | None:
    """The run as its Job, whether the manager has made that yet or not; None if there is no such run."""
    top = cluster.get(kind(cluster, via), name, namespace)
    if top is None:
        return None
    job = cluster.get("Job", vias.job_name(name, via), namespace)
    if job is not None and _is_of(job, top):
        return as_job(top, job, via)
    holder = top
    if via == vias.TRAINJOB:
        with where_allowed():
            holder = cluster.get(f"{top['apiVersion']}/{vias.RUNTIME}", name, namespace) or top
    return as_job(top, None, via, holder)


def _is_of(job: Object, top: Object) -> bool:
    """Whether a Job was made for this object: after an earlier one of the name its Job may still be there."""
    about = job["metadata"]
    if about.get("deletionTimestamp") and not top["metadata"].get("deletionTimestamp"):
        return False
    return bool(about["creationTimestamp"] >= top["metadata"]["creationTimestamp"])


def as_job(top: Object, job: Object | None, via: str, holder: Object | None = None) -> KubeJob:
    """The run as its Job. Pure.

    Args:
        top: What stands for the run.
        job: The Job that was made of it; None if there is none, not yet or not any more.
        holder: What then holds the Job that is to be made.
    """
    managed = msgspec.convert(top, _Managed)
    ends = [msgspec.structs.replace(row, type=ENDS[row.type]) for row in managed.status.conditions if row.type in ENDS]
    if job is not None:
        found = msgspec.convert(job, KubeJob)
        known = {row.type for row in found.status.conditions if row.status == "True"}
        ends = [row for row in ends if row.type not in known and row.type == "Failed"]
        status = msgspec.structs.replace(found.status, conditions=[*found.status.conditions, *ends])
        return msgspec.structs.replace(found, metadata=managed.metadata, made=found.metadata, status=status)
    template: dict[str, Any] = vias.template_of(holder or top) or {}
    found = msgspec.convert({"metadata": top["metadata"], "spec": template}, KubeJob)
    spec = msgspec.structs.replace(found.spec, suspend=managed.spec.suspend)
    made = Metadata(name=vias.job_name(managed.metadata.name, via), namespace=managed.metadata.namespace)
    return KubeJob(managed.metadata, spec, JobStatus(conditions=ends), made=made, unmade=MANAGERS[via].kind)
