"""Kueue beside a cluster: its kinds, its webhooks and its manager, all real; and the queues of a test."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from tests.cluster.harness import programs
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.harness.control_plane import QPS
from tests.cluster.surroundings import certify
from tests.support.waiting import until

PORT, HEALTH_PORT = 9443, 8081
API = "kueue.x-k8s.io/v1beta2"
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kueue-system"}}
KINDS = ("job", "clusterqueue", "cohort", "resourceflavor", "workload")
"""What its webhooks look at here: Jobs and its own kinds. Those of other operators are not installed."""


@contextmanager
def running(cluster: OwnCluster) -> Iterator[None]:
    """Install Kueue, and take it away again: without its manager its webhooks would refuse every Job."""
    folder = programs.folder("kueue")
    kinds = [str(path) for path in sorted((folder / "bases").iterdir())]
    files = [f"--filename={path}" for path in kinds]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.apply(NAMESPACE)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)  # it ends where one is missing
    certificate, argv = _command(cluster)
    cluster.namespaces.start("kueue", argv)
    hooks = _webhooks(cluster, (folder / "webhook" / "manifests.yaml").read_text(), certificate)
    try:
        cluster.wait(lambda: _ready(cluster), 90, "Kueue is not ready")
        cluster.apply(*hooks)
        yield
        _clear(cluster)
    finally:
        cluster.kubectl("delete", *(f"{hook['kind']}/{hook['metadata']['name']}".lower() for hook in hooks))
        cluster.namespaces.kill("kueue")
        cluster.kubectl("delete", "--wait=false", *files)


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


def _command(cluster: OwnCluster) -> tuple[bytes, list[str]]:
    """The certificate of the manager, and its command line."""
    site = cluster.site
    folder = site.folder / "kueue"
    for part in (folder, folder / "etc" / "kueue" / "metrics" / "certs"):
        part.mkdir(parents=True, exist_ok=True)
        for path, name in zip(certify(part, site.control_plane), ("tls.crt", "tls.key"), strict=True):
            path.rename(part / name)
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
        "integrations": {"frameworks": ["batch/job"]},
    }
    (folder / "config.json").write_text(json.dumps(config))
    manager = [
        programs.program("kueue"),
        f"--config={folder / 'config.json'}",
        f"--kubeconfig={cluster.kubeconfig}",
        "--feature-gates=VisibilityOnDemand=false",  # a server of its own, with certificates of its own
    ]
    # It reads a certificate for its metrics below /etc, at a place that no setting changes: it gets an /etc of its own.
    script = 'mount -t overlay -o "lowerdir=$0:/etc" none /etc && exec "$@"'
    return (folder / "tls.crt").read_bytes(), ["unshare", "--mount", "sh", "-c", script, str(folder / "etc"), *manager]


def _webhooks(cluster: OwnCluster, manifests: str, certificate: bytes) -> list[dict[str, Any]]:
    """Its webhooks, where the API server finds them."""
    found: list[dict[str, Any]] = list(yaml.safe_load_all(manifests))
    bundle = base64.b64encode(certificate).decode()
    for row in found:
        row["metadata"]["name"] = f"kueue-{row['metadata']['name']}"
        row["webhooks"] = [hook for hook in row["webhooks"] if hook["name"][1:].removesuffix(".kb.io") in KINDS]
        for hook in row["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            url = f"https://{cluster.site.control_plane}:{PORT}{path}"
            hook["clientConfig"] = {"url": url, "caBundle": bundle}
    return found


def _ready(cluster: OwnCluster) -> bool:
    connection = http.client.HTTPConnection(cluster.site.control_plane, HEALTH_PORT, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _clear(cluster: OwnCluster) -> None:
    """Remove what its manager must let go of."""
    cluster.kubectl("delete", "jobs", "--all-namespaces", "--selector=kueue.x-k8s.io/queue-name", "--wait=false")
    until(lambda: not cluster.get("workloads", "--all-namespaces")["items"], 60)
    cluster.kubectl("delete", "localqueues", "--all", "--all-namespaces")
    cluster.kubectl("delete", "clusterqueues,resourceflavors,topologies", "--all", "--timeout=60s")
