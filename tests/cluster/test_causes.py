"""What stands around a cluster and keeps a run from working, for real, and what `stackctl explain` says of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster import surroundings
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter

pytestmark = pytest.mark.needs("cluster", "docker", "registry")

PLAIN = ["--no-preflight", "--retries", "0", "--grace", "0"]
TRUE = ["--", "true"]
WRITE = "import time; open('/out/large', 'wb').write(bytes(30 << 20)); time.sleep(600)"
CRASH = "import os, signal; print('step 7', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"

CAUSES = {
    "absent": ("image not found", "none:1"),
    "locked": ("image unauthorized", "image pull secret"),
    "bare": ("no python", "stackrt"),
    "unbound": ("claim", "unbound immediate PersistentVolumeClaims"),
    "signal": ("rank failed", "SIGSEGV"),
    "evicted": ("evicted", "exceeds the total limit of containers 10Mi"),
}
"""Run -> the cause that is found; words of its explanation."""


@pytest.fixture(scope="module")
def drills(
    shared_submitter: Submitter, own_cluster: OwnCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Submitter]:
    """Submits every run, in a namespace that gives each container 10 MiB for files."""
    namespace = shared_submitter.namespace
    limit = {"type": "Container", "default": {"ephemeral-storage": "10Mi"}}
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    own_cluster.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small", "namespace": namespace},
         "spec": {"limits": [limit]}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unbound", "namespace": namespace},
         "spec": claim},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("registries")
    with ExitStack() as around, ThreadPoolExecutor(4) as pool:
        registry = around.enter_context(surroundings.registry(own_cluster, folder / "open"))
        locked = around.enter_context(surroundings.registry(own_cluster, folder / "locked", locked=True))
        words = {
            "absent": ["--image", f"{registry}/none:1", *TRUE],
            "locked": ["--image", f"{locked}/private:1", *TRUE],
            "bare": ["--image", surroundings.upload_bare_image(registry, "bare"), *TRUE],
            "unbound": ["--volume", "unbound", *TRUE],
            "signal": ["--", "python", "-c", CRASH],
            "evicted": ["--", "python", "-c", WRITE],
        }
        list(pool.map(lambda name: shared_submitter.submit(name, *PLAIN, *words[name]), CAUSES))
        yield shared_submitter


@pytest.mark.parametrize("name", [name for name in CAUSES if name != "evicted"])
def test_a_cause_is_found(drills: Submitter, name: str) -> None:
    cause, saying = CAUSES[name]
    assert saying in drills.wait_for_cause(name, cause).text


def test_an_image_that_does_not_come(drills: Submitter, own_cluster: OwnCluster) -> None:
    """Not at once with the others: a node pulls one image after the other."""
    with surroundings.silent_registry(own_cluster) as address:
        drills.submit("silent", *PLAIN, "--image", f"{address}/large:1", *TRUE)
        assert "large:1" in drills.wait_for_cause("silent", "image pulling").text
    drills.cancel("silent")  # a node ends a pod only when its pull has ended


def test_a_webhook_that_refuses_pods(submitter: Submitter, own_cluster: OwnCluster, tmp_path: Path) -> None:
    refusal = {"allowed": False, "status": {"message": "every pod names its owner"}}
    with surroundings.webhook(own_cluster, submitter.namespace, tmp_path, "Validating", "pods", lambda _pod: refusal):
        submitter.submit("refused", *PLAIN, *TRUE)
        assert "every pod names its owner" in submitter.wait_for_cause("refused", "webhook").sentence


def test_a_webhook_that_refuses_the_job(submitter: Submitter, own_cluster: OwnCluster, tmp_path: Path) -> None:
    refusal = {"allowed": False, "status": {"message": "no job on Sundays"}}
    with surroundings.webhook(own_cluster, submitter.namespace, tmp_path, "Validating", "jobs", lambda _job: refusal):
        done = submitter.stackctl("submit", "--image", submitter.image, *TRUE)
    assert done.returncode == 3
    assert "does not admit this" in done.stderr
    assert "no job on Sundays" in done.stderr
    assert submitter.objects() == []


def test_pods_that_a_webhook_makes_unsafe(submitter: Submitter, own_cluster: OwnCluster, tmp_path: Path) -> None:
    """As a service mesh's does, which wants to set up the pod's network."""
    add = {"op": "add", "path": "/spec/containers/0/securityContext/capabilities/add", "value": ["NET_ADMIN"]}
    patch = base64.b64encode(json.dumps([add]).encode()).decode()
    change = {"allowed": True, "patchType": "JSONPatch", "patch": patch}
    with surroundings.webhook(own_cluster, submitter.namespace, tmp_path, "Mutating", "pods", lambda _pod: change):
        submitter.submit("unsafe", *PLAIN, *TRUE)
        assert "NET_ADMIN" in submitter.wait_for_cause("unsafe", "pod security").sentence


def test_a_pod_that_writes_more_than_it_may(drills: Submitter) -> None:
    """The kubelet looks every ten seconds: last, so that nobody waits for it."""
    cause, saying = CAUSES["evicted"]
    assert saying in drills.wait_for_cause("evicted", cause, 90).text
