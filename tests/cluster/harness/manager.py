"""A manager of kinds of its own beside a cluster, all of it real: its kinds, its webhooks, and its program."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import programs
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.surroundings import certify
from tests.support.waiting import until


def every(_name: str) -> bool:
    return True


@dataclass(frozen=True)
class Manager:
    """What is known of one.

    Args:
        part: Of the cluster's programs.
        kinds: The folder of its kinds, of those that are kept with its program.
        command: From the cluster and a folder with the certificate and its key to its command line.
        port: Where its webhooks listen.
        health: Where it says that it is ready.
        wanted: Which of its webhooks are installed, by name.
    """

    part: str
    kinds: str
    command: Callable[[OwnCluster, Path], list[str]]
    port: int
    health: int
    wanted: Callable[[str], bool] = every


@contextmanager
def running(cluster: OwnCluster, manager: Manager) -> Iterator[None]:
    """Install it, and take it away again: without its program its webhooks would refuse what they look at."""
    folder = programs.folder(manager.part)
    kinds = [str(path) for path in sorted((folder / manager.kinds).glob("*_*.yaml"))]
    files = [f"--filename={path}" for path in kinds]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"{manager.part}-system"}})
    # It ends where one is missing, or has no conditions yet.
    established = ["wait", "--for=condition=Established", "--timeout=60s", *files]
    until(lambda: cluster.kubectl(*established, check=False).returncode == 0, 60)
    place = cluster.site.folder / manager.part
    certificate = certified(cluster, place)
    cluster.namespaces.start(manager.part, manager.command(cluster, place))
    hooks = _webhooks(cluster, manager, (folder / "webhook" / "manifests.yaml").read_text(), certificate)
    try:
        cluster.wait(lambda: _ready(cluster, manager), 90, f"{manager.part} is not ready")
        cluster.apply(*hooks)
        yield
    finally:
        cluster.kubectl("delete", *(f"{hook['kind']}/{hook['metadata']['name']}".lower() for hook in hooks))
        cluster.namespaces.kill(manager.part)
        cluster.kubectl("delete", "--wait=false", *files)


def certified(cluster: OwnCluster, place: Path) -> bytes:
    """Put a certificate and its key into a folder, as a manager looks for them; returns the certificate."""
    place.mkdir(parents=True, exist_ok=True)
    for path, name in zip(certify(place, cluster.site.control_plane), ("tls.crt", "tls.key"), strict=True):
        path.rename(place / name)
    return (place / "tls.crt").read_bytes()


def _webhooks(cluster: OwnCluster, manager: Manager, manifests: str, certificate: bytes) -> list[dict[str, Any]]:
    """Its webhooks, where the API server finds them."""
    found: list[dict[str, Any]] = [row for row in yaml.safe_load_all(manifests) if "webhooks" in row]
    bundle = base64.b64encode(certificate).decode()
    for row in found:
        row["metadata"]["name"] = f"{manager.part}-{row['metadata']['name']}"
        row["webhooks"] = [hook for hook in row["webhooks"] if manager.wanted(hook["name"])]
        for hook in row["webhooks"]:
            path = hook["clientConfig"]["service"]["path"]
            url = f"https://{cluster.site.control_plane}:{manager.port}{path}"
            hook["clientConfig"] = {"url": url, "caBundle": bundle}
    return found


def _ready(cluster: OwnCluster, manager: Manager) -> bool:
    connection = http.client.HTTPConnection(cluster.site.control_plane, manager.health, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()
