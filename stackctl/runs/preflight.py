"""What can be known before anything is created: permissions, namespace, claims, quota, room. Each one clear error."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from stackctl.engines.kube import ApiError, Cluster, Object
from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import kubernetes, quantity
from stackctl.jobs.placement import Volume
from stackctl.runs import feasibility, holders, queue_reader
from stackctl.runs.submission import Submission

NEEDED = (
    ("create", "batch", "jobs"),
    ("get", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("create", "", "services"),
    ("create", "", "secrets"),
    ("create", "networking.k8s.io", "networkpolicies"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
"""What submitting, watching and cancelling take: verb, API group, resource."""

_SHARED = {"ReadWriteMany"}
_SKIP = "--no-preflight submits it all the same, to wait for room"
_DEFAULTED = ("cpu", "memory")


def check(cluster: Cluster, submission: Submission) -> list[str]:
    """Ask the cluster for the namespace, then for everything at once; return what is worth telling.

    Raises:
        ApiError: It does not answer, or does not accept us.
        MissingHere: A permission, the namespace, a claim, quota or room is missing; says which.
        InvalidInput: The job cannot work as it was asked for.
    """
    job, placement = submission.job, submission.placement
    need = kubernetes.requests(job, placement)
    _check_namespace(cluster, placement.namespace)  # alone: of a cluster that does not answer all would wait in turn
    with ThreadPoolExecutor(8) as pool:
        access = {row: pool.submit(_allowed, cluster, placement.namespace, row) for row in NEEDED}
        claims = {row: pool.submit(cluster.get, "PersistentVolumeClaim", row.claim, placement.namespace)
                  for row in placement.volumes}  # fmt: skip
        quotas = pool.submit(cluster.items, "ResourceQuota", dict, placement.namespace)
        trial = pool.submit(cluster.create, submission.manifests[0], dry_run=True)
        nodes = pool.submit(cluster.items, "Node", feasibility.Node, resourceVersion="0")
        pods = pool.submit(cluster.items, "Pod", feasibility.Pod, fieldSelector=holders.PLACED, resourceVersion="0")
        priority = pool.submit(cluster.get, "PriorityClass", placement.priority) if placement.priority else None
        asked = (cluster, placement.namespace, placement.queue, need)
        queue = pool.submit(queue_reader.check, *asked, nodes=job.nodes) if placement.queue else None

    _check_access({row: future.result() for row, future in access.items()}, placement.namespace)
    said = _trial_warnings(trial)
    for volume, future in claims.items():
        if _forbidden(future):
            said.append(f"you may not look at claims: {volume.claim} is not checked")
        else:
            _check_claim(volume, future.result(), job.nodes, placement.namespace)
    if priority and not _forbidden(priority) and priority.result() is None:
        hint = "`kubectl get priorityclasses` lists them"
        raise MissingHere("the cluster has no such class", where=f"--priority {placement.priority}", hint=hint)
    problem, notes = queue.result() if queue else ("", [])
    if problem:
        raise MissingHere(problem, where=f"--queue {placement.queue}")
    said += notes
    if _forbidden(quotas):
        said.append("you may not look at the namespace's quota: it is not checked")
    for quota in [] if _forbidden(quotas) else quotas.result():
        problem = quota_problem(quota, need, nodes=job.nodes)
        if problem:
            raise MissingHere(problem, where=f"namespace {placement.namespace}", hint=f"ask for less; {_SKIP}")
    if _forbidden(nodes) or _forbidden(pods):
        return [*said, "you may not list the cluster's nodes and pods: it is not known whether the job fits"]
    _check_room(nodes.result(), pods.result(), submission, need)
    return said


def quota_problem(quota: Mapping[str, Any], need: Mapping[str, str], *, nodes: int) -> str:
    """Why a ResourceQuota would keep the job's pods out; empty if it would not."""
    spec, status = quota.get("spec") or {}, quota.get("status") or {}
    if spec.get("scopes") or spec.get("scopeSelector"):
        return ""
    name, used = quota["metadata"]["name"], status.get("used") or {}
    for key, hard in (status.get("hard") or spec.get("hard") or {}).items():
        kind = key.removeprefix("requests.").removeprefix("limits.")
        if kind in _DEFAULTED and kind not in need:
            return f"the quota {name} counts {key}, so every pod has to say it: use --{kind}"
        wanted = 1.0 if kind == "count/jobs.batch" else nodes * (1.0 if kind == "pods" else _amount(need.get(kind)))
        left = quantity.value(str(hard)) - quantity.value(str(used.get(key, "0")))
        if wanted > left:
            told = f"{quantity.show(max(left, 0))} of {quantity.show(quantity.value(str(hard)))} left"
            return f"the quota {name} has {key} {told}, and the job needs {quantity.show(wanted)}"
    return ""


def _amount(text: str | None) -> float:
    return quantity.value(text) if text else 0.0


def _allowed(cluster: Cluster, namespace: str, row: tuple[str, str, str]) -> bool:
    verb, group, resource = row
    resource, _, part = resource.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
    review: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
    answer, _ = cluster.create({**review, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))


def _check_namespace(cluster: Cluster, name: str) -> None:
    try:
        missing = cluster.get("Namespace", name) is None
    except ApiError as error:
        if error.status != 403:
            raise
        return  # a submitter may be allowed nothing outside their namespace
    if missing:
        raise MissingHere(
            "the cluster has no such namespace",
            where=f"--namespace {name}",
            hint=f"create it (`kubectl create namespace {name}`; docs/kubernetes.md), or choose another",
        )


def _check_access(allowed: Mapping[tuple[str, str, str], bool], namespace: str) -> None:
    missing = [f"{verb} {resource}" for (verb, _, resource), good in allowed.items() if not good]
    if missing:
        raise MissingHere(
            f"you may not {', '.join(missing)} in the namespace {namespace}",
            hint="ask its owner for the role in k8s/base/rbac.yaml, or choose another --namespace",
        )


def _check_claim(volume: Volume, claim: Object | None, nodes: int, namespace: str) -> None:
    where = f"--volume {volume.claim}"
    if claim is None:
        raise MissingHere(
            f"the namespace {namespace} has no such claim", where=where, hint="`kubectl get pvc` lists them"
        )
    modes = set(claim.get("spec", {}).get("accessModes") or [])
    if claim.get("status", {}).get("phase") == "Lost":
        raise MissingHere("its volume is lost", where=where)
    if nodes > 1 and not (modes & _SHARED or (volume.read_only and "ReadOnlyMany" in modes)):
        raise InvalidInput(
            f"can be mounted by one node at a time ({', '.join(sorted(modes))}), and the job has {nodes}",
            where=where,
            hint="use a claim with the access mode ReadWriteMany, or a single node",
        )


def _trial_warnings(trial: Future[tuple[Object, list[str]]]) -> list[str]:
    """What the cluster warns of when it is shown the Job."""
    try:
        return [f"the cluster warns: {text}" for text in trial.result()[1]]
    except ApiError as error:
        if error.reason == "AlreadyExists":  # for `create` to judge: it may be this very job
            return []
        raise


def _check_room(
    nodes: list[feasibility.Node], pods: list[feasibility.Pod], submission: Submission, need: Mapping[str, str]
) -> None:
    job, placement = submission.job, submission.placement
    found = feasibility.room(
        nodes,
        [] if placement.queue else pods,  # a queue waits for room; it only must be there at all
        need,
        selector=placement.profile.selector,
        tolerations=placement.profile.tolerations,
        apart=placement.apart,
    )
    problem = feasibility.refusal(found, nodes=job.nodes, need=need)
    if problem and found.ever < job.nodes:
        never = f"the cluster could never hold more than {found.ever}: ask for fewer nodes"
        none = "no node could ever take it: ask for less on each"
        raise MissingHere(problem, hint=f"{never if found.ever else none}; {_SKIP}")
    if problem:
        part = found.now and job.nodes > 1 and not placement.queue
        held = f": a node that has a place then gives it back after {job.timeout} s (--timeout)" if part else ""
        raise MissingHere(problem, hint=f"wait for what runs there, or ask for less; {_SKIP}{held}")


def _forbidden(future: Future[Any]) -> bool:
    error = future.exception()
    return isinstance(error, ApiError) and error.status == 403
