"""Read a cluster's queues, as far as the person may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.runs import queues
from stackctl.runs.objects import KubeJob
from stackctl.runs.queue_objects import ClusterQueue, Kueue, LocalQueue, Workload
from stackctl.runs.queues import Picture

T = TypeVar("T")


class _Listed(Kueue, frozen=True):
    items: list[LocalQueue]


class _Workloads(Kueue, frozen=True):
    items: list[Workload]


def look(cluster: Cluster, job: KubeJob) -> Picture | None:
    """The queue that a suspended Job waits in; None if it waits in none."""
    name = job.metadata.labels.get(queues.QUEUE_LABEL)
    if not (name and job.spec.suspend):
        return None
    root = ""
    with where_allowed():
        root = _root(cluster)
    if not root:
        return None
    namespace = f"{root}/namespaces/{job.metadata.namespace}"
    local = _readable(cluster, f"{namespace}/localqueues", _Listed)
    workloads = _readable(cluster, f"{namespace}/workloads", _Workloads)
    found = Picture(name, local.items if local else (), workloads.items if workloads else None)
    shared = queues.shared_queue(found)
    return found._replace(cluster_queue=_shared(cluster, root, shared) if shared else None)


def check(
    cluster: Cluster, namespace: str, queue: str, need: Mapping[str, str], *, nodes: int
) -> tuple[str, list[str]]:
    """Why a job would wait in a queue for ever, empty if it would not; and what is worth telling of it.

    Raises:
        ApiError: The cluster does not answer, or does not let us look.
    """
    root = _root(cluster)
    if not root:
        return "the cluster has no Kueue", []
    listed = cluster.read(f"{root}/namespaces/{namespace}/localqueues", _Listed)
    local = next((row for row in listed.items if row.metadata.name == queue), None)
    if local is None:
        known = ", ".join(row.metadata.name for row in listed.items) or "none"
        return f"there is no such queue; known: {known}", []
    shared = _shared(cluster, root, local.spec.cluster_queue)
    closed = local.closed or (shared.closed if shared else "")
    notes = [f"the queue {queue} admits nothing now: {closed}"] if closed else []
    if shared is None:
        return "", [*notes, f"you may not get clusterqueues: whether the quota of {queue} is enough is not known"]
    return queues.never(shared, need, nodes=nodes), notes


def _root(cluster: Cluster) -> str:
    """Where Kueue's objects are, in the version that the cluster prefers; empty if it has none.

    Raises:
        ApiError: The cluster does not answer, or does not let us look.
    """
    served = cluster.served("kueue.x-k8s.io")
    return f"apis/{served}" if served else ""


def _shared(cluster: Cluster, root: str, name: str) -> ClusterQueue | None:
    return _readable(cluster, f"{root}/clusterqueues/{name}", ClusterQueue)


def _readable(cluster: Cluster, path: str, of: type[T]) -> T | None:
    """What is there, or None where there is nothing, or the person may not read it."""
    try:
        with where_allowed():
            return cluster.read(path, of)
    except ApiError as error:
        if error.status != 404:
            raise
    return None
