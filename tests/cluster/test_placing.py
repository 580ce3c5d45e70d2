"""How a job is placed: room, claims, names, the code that goes with it; and what the cluster takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, OwnCluster
from tests.cluster.harness.site import GPUS
from tests.commands import ROOT, Stackctl
from tests.integration.running import wait_for

pytestmark = pytest.mark.needs("cluster")

OnCluster = Callable[..., Any]
Submit = Callable[..., str]

SLEEP = ["--", "sleep", "600"]
ALL_GPUS = ["--nodes", "2", "--gpus", str(GPUS), "--device", "cpu"]


@pytest.fixture
def on_cluster(stackctl: Stackctl, cluster: Cluster, namespace: str) -> OnCluster:
    """Run a stackctl command on the cluster, in the test's namespace; returns the finished process."""

    def run(command: str, *words: str, **given: Any) -> Any:
        given["env"] = {"KUBECONFIG": str(cluster.kubeconfig)}
        return stackctl(command, "-n", namespace, *words, **given)

    return run


@pytest.fixture
def submit(on_cluster: OnCluster, pod_image: str) -> Callable[..., str]:
    """Submit a job with the image at hand, and see that it was accepted; returns its name."""

    def run(name: str, *words: str, **given: Any) -> str:
        done = on_cluster("submit", "--image", pod_image, "--name", name, *words, **given)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{name}\n"
        return name

    return run


def test_code_is_shipped_to_every_pod(on_cluster: OnCluster, submit: Submit, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text("import os, helper; print(helper.WORD, os.environ['RANK'], os.getcwd())\n")
    (code / "helper.py").write_text("WORD = 'shipped'\n")
    done = on_cluster("wait", submit("mine", "--nodes", "2", "--code", str(code), "--", "python", "mine.py"))
    assert done.returncode == 0, done.stderr
    said = on_cluster("logs", "mine").stdout.splitlines()
    assert sorted(said) == ["[0] shipped 0 /workspace", "[1] shipped 1 /workspace"]


def test_a_job_that_does_not_fit_is_refused_with_the_nodes_that_fall_short(
    on_cluster: OnCluster, submit: Submit, own_cluster: OwnCluster, pod_image: str, namespace: str
) -> None:
    holder = submit("holder", "--gpus", "3", "--device", "cpu", "--grace", "0", *SLEEP)
    wait_for(lambda: '"running"' in on_cluster("status", holder, "--json").stdout, 120)
    refused = on_cluster("submit", "--image", pod_image, "--name", "big", *ALL_GPUS, *SLEEP)
    assert refused.returncode == 3
    assert "1 of 2 nodes fit now: each needs nvidia.com/gpu 8" in refused.stderr
    assert "nvidia.com/gpu 5 of 8 free" in refused.stderr
    assert "--no-preflight" in refused.stderr
    never = on_cluster("submit", "--image", pod_image, "--name", "big", *ALL_GPUS, "--nodes", "3", *SLEEP)
    assert "could never hold more than 2" in never.stderr
    assert [row["metadata"]["name"] for row in own_cluster.get("jobs", "-n", namespace)["items"]] == [holder]
    assert on_cluster("cancel", holder).returncode == 0


def test_a_quota_that_is_too_small_is_told_before(
    on_cluster: OnCluster, submit: Submit, cluster: Cluster, namespace: str, pod_image: str
) -> None:
    hard = {"requests.nvidia.com/gpu": "8"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team", "namespace": namespace}}
    cluster.apply({**quota, "spec": {"hard": hard}})
    wait_for(lambda: "hard" in cluster.get("quota", "team", "-n", namespace).get("status", {}), 30)
    refused = on_cluster("submit", "--image", pod_image, "--name", "much", *ALL_GPUS, *SLEEP)
    assert refused.returncode == 3
    assert "the quota team has requests.nvidia.com/gpu 8 of 8 left, and the job needs 16" in refused.stderr


def test_a_name_that_exists_is_taken(on_cluster: OnCluster, pod_image: str) -> None:
    words = ["--image", pod_image, "--name", "a"]
    assert on_cluster("submit", *words, "--", "sleep", "1").returncode == 0
    other = on_cluster("submit", *words, "--", "sleep", "2")
    assert (other.returncode, "has another job of this name" in other.stderr) == (4, True), other.stderr
    assert on_cluster("wait", "a").returncode == 0
    again = on_cluster("submit", *words, "--", "sleep", "1")
    assert (again.returncode, "this job has run already" in again.stderr) == (4, True), again.stderr
    assert on_cluster("cancel", "a").returncode == 0


def test_a_claim_for_one_node_is_refused_for_two(
    on_cluster: OnCluster, cluster: Cluster, namespace: str, pod_image: str
) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    meta = {"name": "once", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec})
    words = ["--image", pod_image, "--name", "a", "--nodes", "2", "--volume", "once", "--", "true"]
    refused = on_cluster("submit", *words)
    assert refused.returncode == 2
    assert "can be mounted by one node at a time (ReadWriteOnce), and the job has 2" in refused.stderr
    absent = on_cluster("submit", *words[:-4], "--volume", "absent", "--", "true")
    assert (absent.returncode, "has no such claim" in absent.stderr) == (3, True), absent.stderr


def test_the_cluster_takes_every_manifest(on_cluster: OnCluster, cluster: Cluster, namespace: str) -> None:
    words = ["--nodes", "2", "--gpus", "8", "--name", "a"]
    checked = on_cluster("submit", *words, "--dry-run=server", "-o", "json")
    assert checked.returncode == 0, checked.stderr
    assert [row["kind"] for row in json.loads(checked.stdout)["items"]] == ["Job", "Secret", "Service", "NetworkPolicy"]
    text = on_cluster("submit", *words, "--dry-run").stdout
    said = cluster.kubectl("apply", "--dry-run=server", "-n", namespace, "-f", "-", given=text)
    assert (said.stdout.count("created"), said.stderr) == (4, "")
    base = cluster.kubectl("apply", "--dry-run=server", "-k", str(ROOT / "k8s" / "base"), check=False)
    assert 'namespaces "training" not found' in base.stderr or base.returncode == 0
    assert cluster.get("jobs", "-n", namespace)["items"] == []
