"""Kueue beside a cluster: its kinds, its webhooks and its manager, all real; and the queues of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.cluster.harness import manager, programs
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.harness.control_plane import QPS
from tests.cluster.harness.manager import Manager, certified
from tests.support.waiting import until

PORT, HEALTH_PORT = 9443, 8081
API = "kueue.x-k8s.io/v1beta2"
KINDS = ("job", "clusterqueue", "cohort", "resourceflavor", "workload")
"""What its webhooks look at here: Jobs and its own kinds. Those of other operators are not installed."""


@contextmanager
def running(cluster: OwnCluster, *operators: str) -> Iterator[None]:
    """Install Kueue, and take it away again.

    Args:
        operators: What else it queues beside Jobs, as `jobset.x-k8s.io/jobset`; installed before.
    """
    kinds = (*KINDS, *(name.rpartition("/")[2] for name in operators))
    wanted = partial(_wanted, kinds)
    kueue = Manager("kueue", "bases", partial(_command, operators), PORT, HEALTH_PORT, wanted)
    with manager.running(cluster, kueue):
        yield
        _clear(cluster)


def _wanted(kinds: Sequence[str], name: str) -> bool:
    return name[1:].removesuffix(".kb.io") in kinds


def queue(cluster: OwnCluster, namespace: str, name: str, quota: Mapping[str, int], flavor: str = "default") -> None:
    """Make a ClusterQueue, and a LocalQueue of the same name in a namespace.

    Args:
        quota: Resource -> amount.
        flavor: Whose; `default` is made, too.
    """
    amounts = [{"name": key, "nominalQuota": amount} for key, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": flavor, "resources": amounts}]}
    preemption = {"withinClusterQueue": "LowerPriority"}
    spec = {"namespaceSelector": {}, "resourceGroups": [group], "preemption": preemption}
    local = {"namespace": namespace, "name": name}
    cluster.apply(
        {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": "default"}},
        {"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": API, "kind": "LocalQueue", "metadata": local, "spec": {"clusterQueue": name}},
    )
    cluster.kubectl("wait", "--for=condition=Active", f"clusterqueue/{name}", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Active", "-n", namespace, f"localqueue/{name}", "--timeout=60s")


def _command(operators: Sequence[str], cluster: OwnCluster, folder: Path) -> list[str]:
    """The manager's command line."""
    site = cluster.site
    certified(cluster, folder / "etc" / "kueue" / "metrics" / "certs")
    config = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "namespace": "kueue-system",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"host": site.control_plane, "port": PORT, "certDir": str(folder)},
        "health": {"healthProbeBindAddress": f"{site.control_plane}:{HEALTH_PORT}"},
        "metrics": {"bindAddress": "0"},
        "clientConnection": QPS,
        "integrations": {"frameworks": ["batch/job", *operators]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    argv = [
        programs.program("kueue"),
        f"--config={folder / 'config.json'}",
        f"--kubeconfig={cluster.kubeconfig}",
        "--feature-gates=VisibilityOnDemand=false",  # a server of its own, with certificates of its own
    ]
    # It reads a certificate for its metrics below /etc, at a place that no setting changes: it gets an /etc of its own.
    script = 'mount -t overlay -o "lowerdir=$0:/etc" none /etc && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder / "etc"), *argv]


def _clear(cluster: OwnCluster) -> None:
    """Remove what its manager must let go of."""
    cluster.kubectl("delete", "jobs", "--all-namespaces", "--selector=kueue.x-k8s.io/queue-name", "--wait=false")
    until(lambda: not cluster.get("workloads", "--all-namespaces")["items"], 60)
    cluster.kubectl("delete", "localqueues", "--all", "--all-namespaces")
    cluster.kubectl("delete", "clusterqueues,resourceflavors,topologies", "--all", "--timeout=60s")
