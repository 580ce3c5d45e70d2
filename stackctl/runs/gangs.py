"""Whether a cluster places the nodes of a job all at once, and how it is told to: asked, and not known by versions."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec

from stackctl.engines.kube import Cluster, Object
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.errors import MissingHere
from stackctl.jobs import gang
from stackctl.jobs import via as vias
from stackctl.jobs.job import Job
from stackctl.runs.handle import Tell
from stackctl.runs.objects import Condition


class _Version(msgspec.Struct, rename="camel"):
    group_version: str


class _Versions(msgspec.Struct):
    versions: list[_Version]


class _Resource(msgspec.Struct):
    name: str


class _Resources(msgspec.Struct):
    resources: list[_Resource]


class _Status(msgspec.Struct, frozen=True):
    conditions: list[Condition] = []


class _Policy(msgspec.Struct, frozen=True):
    gang: dict[str, int] | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    scheduling_policy: _Policy = _Policy()


class _Group(msgspec.Struct, frozen=True):
    spec: _Spec = _Spec()
    status: _Status = _Status()


def served(cluster: Cluster) -> str:
    """The group and version in which the cluster serves PodGroups; empty if it serves none."""
    try:
        for row in cluster.read(f"apis/{gang.API_GROUP}", _Versions).versions:
            found = cluster.read(f"apis/{row.group_version}", _Resources).resources
            if any(resource.name == gang.RESOURCE for resource in found):
                return row.group_version
    except ApiError as error:
        if error.status not in (403, 404):
            raise
    return ""


def beside(cluster: Cluster) -> list[str]:
    """The kind of groups, with group and version, where the cluster serves it: one may have been applied for a run."""
    group = served(cluster)
    return [f"{group}/{gang.KIND}"] if group else []


def choose(cluster: Cluster, job: Job, tell: Tell, *, wish: str, via: str, namespace: str, api: str) -> str:
    """How this cluster is told that a job is a gang, which `jobs.gang.fits` finds it to be; empty if it cannot be told.

    Args:
        wish: How much it is wanted, one of `jobs.gang.WISHES`.
        via: What gives the cluster the job, and in which group and version where that is not its own Job, `api`.

    Raises:
        MissingHere: It was asked for, and cannot be.
    """
    found, why = _look(cluster, job, via, namespace, api)
    if found:
        how = f"the Job's {found}" if found == gang.BY_JOB else f"a {gang.KIND} of {found}"
        tell(f"note: the cluster places all {job.nodes} nodes at once, or none: by {how}")
    elif wish == gang.ALWAYS:
        hint = "leave --gang out: nodes that have a place then wait for the others for --timeout at most"
        raise MissingHere(why or _NOT_SERVED.format(host=cluster.host), where="--gang always", hint=hint)
    elif why:
        tell(f"note: {why}; nodes get their places one by one")
    return found


_NOT_SERVED = (
    "the cluster at {host} places no gangs: it serves no PodGroup (Kubernetes 1.36 and newer do where the feature gate "
    "GenericWorkload and the API are switched on)"
)


def _look(cluster: Cluster, job: Job, via: str, namespace: str, api: str) -> tuple[str, str]:
    """How, or why not; neither where the cluster knows nothing of gangs."""
    group = served(cluster)
    if not group:
        return "", ""
    if via == vias.JOB and _is_kept(cluster, _probe(job, namespace, gang.BY_JOB)):
        return gang.BY_JOB, ""
    if via != vias.JOB and not _is_known(cluster, vias.wrapped(_probe(job, namespace, group), via, api)[0]):
        return "", f"the cluster's {vias.MANAGERS[via].kind} cannot say that its pods are a gang"
    if not _may_make(cluster, namespace):
        return "", f"the cluster places gangs, and you may not create {gang.RESOURCE} (k8s/base/gangs.yaml)"
    return group, ""


def _probe(job: Job, namespace: str, how: str) -> Object:
    """The least of a Job that says it is a gang, to be shown to the cluster and never made."""
    container = {"name": "node", "image": "none"}
    pod = {"restartPolicy": "Never", "containers": [container], **gang.of_pod(how, job.name)}
    size = {"completionMode": "Indexed", "completions": job.nodes, "parallelism": job.nodes}
    whole = {**size, "ttlSecondsAfterFinished": 60, "template": {"metadata": {}, "spec": pod}}
    spec = {**whole, **gang.of_job(how, job.nodes)}
    # A name of its own, since the run may be there already.
    metadata = {"name": f"gang-{secrets.token_hex(8)}", "namespace": namespace, "labels": dict[str, str]()}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _is_kept(cluster: Cluster, probe: Object) -> bool:
    """Whether the cluster takes what a Job says of its gang: it drops the field, or refuses it, where that is off."""
    try:
        return bool(cluster.create(probe, dry_run=True)[0]["spec"].get("scheduling"))
    except ApiError as error:
        if error.status == 0:
            raise
        return False


def _is_known(cluster: Cluster, probe: Object) -> bool:
    """Whether the schema of a manager's kind has the pods' field; it is looked at before all else."""
    try:
        cluster.create(probe, dry_run=True)
    except ApiError as error:
        if error.status == 0:
            raise
        return gang.FIELD not in error.message
    return True


def _may_make(cluster: Cluster, namespace: str) -> bool:
    asked = {"namespace": namespace, "verb": "create", "group": gang.API_GROUP, "resource": gang.RESOURCE}
    review: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
    answer, _ = cluster.create({**review, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))


def refusal(cluster: Cluster, names: Iterable[str], namespace: str) -> str:
    """What the scheduler says of groups of pods that it has not placed; empty if nothing may be seen of it."""
    known = [name for name in dict.fromkeys(names) if name]
    api = served(cluster) if known else ""
    for name in known if api else []:
        with where_allowed():
            there = cluster.get(f"{api}/{gang.KIND}", name, namespace)
            group = msgspec.convert(there or {}, _Group)
            rows = group.status.conditions if group.spec.scheduling_policy.gang else []  # any Job may have a group
            said = [row for row in rows if row.type.startswith(gang.KIND) and row.status == "False"]
            if said:
                return said[0].message or said[0].reason
    return ""
