"""What the cluster's tests share: one cluster for the whole run, and a namespace for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import GIVEN, Cluster, GivenCluster, OwnCluster
from tests.cluster.submitting import Submitter

NUMBERS = itertools.count()
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def pod_image(request: pytest.FixtureRequest) -> str:
    """An image of ours that the nodes can run: PyTorch's, built from this tree, or the one of STACK_TEST_IMAGE."""
    if "STACK_TEST_IMAGE" in os.environ:
        return os.environ["STACK_TEST_IMAGE"]
    if GIVEN:
        pytest.skip("STACK_TEST_IMAGE names no image that the cluster of STACK_TEST_KUBECONFIG can pull")
    return str(request.getfixturevalue("image"))


@pytest.fixture(scope="session")
def cluster(pod_image: str) -> Iterator[Cluster]:
    """The cluster of this run: started when the first test asks for it, shared by all."""
    if GIVEN:
        yield GivenCluster()
        return
    own = OwnCluster([pod_image])
    yield own
    own.stop()


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> OwnCluster:
    """The cluster, for tests that do to it what no cluster of others should suffer."""
    if not isinstance(cluster, OwnCluster):
        pytest.skip("it harms the cluster, and STACK_TEST_KUBECONFIG is another's")
    return cluster


@contextmanager
def new_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace where pods must be restricted."""
    name = f"stacktest-{os.getpid()}-{next(NUMBERS)}"
    labels = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    cluster.apply(labels)
    cluster.kubectl("wait", "--namespace", name, "serviceaccount/default", "--for=create", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    with new_namespace(cluster) as name:
        yield name


@pytest.fixture
def submitter(cluster: Cluster, namespace: str, pod_image: str, tmp_path: Path) -> Submitter:
    """Submits to the test's namespace, as the cluster's administrator."""
    return Submitter(cluster, namespace, pod_image, tmp_path, cluster.kubeconfig)


@pytest.fixture(scope="module")
def shared_submitter(cluster: Cluster, pod_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitter]:
    """Submits to a namespace that a module's tests share."""
    with new_namespace(cluster) as name:
        yield Submitter(cluster, name, pod_image, tmp_path_factory.mktemp("store"), cluster.kubeconfig)


@pytest.fixture
def shared_claim(own_cluster: OwnCluster, namespace: str) -> Iterator[Path]:
    """A claim `shared` for all nodes at once; gives the folder behind it."""
    folder = own_cluster.shared_folder(namespace)
    about = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    capacity = {"storage": "1Gi"}
    reference = {"namespace": namespace, "name": "shared"}
    own_cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": namespace},
            "spec": {**about, "capacity": capacity, "claimRef": reference, "hostPath": {"path": str(folder)}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": reference,
            "spec": {**about, "resources": {"requests": capacity}, "volumeName": namespace},
        },
    )
    bound = ("wait", "--namespace", namespace, "persistentvolumeclaim/shared", "--for=jsonpath={.status.phase}=Bound")
    own_cluster.kubectl(*bound, "--timeout=90s")
    yield folder
    own_cluster.kubectl("delete", "persistentvolume", namespace, "--wait=false")
