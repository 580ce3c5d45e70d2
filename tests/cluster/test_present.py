"""How things stand now: what `status`, `wait`, `explain` and `logs` tell of a run whose cluster has other rules."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import surroundings
from tests.cluster import test_access as access
from tests.cluster.conftest import new_namespace
from tests.cluster.harness.cluster import Cluster, OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.images import with_entrypoint
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

PLAIN = ["--no-preflight", "--grace", "0"]
SLEEP = ["--", "sleep", "600"]
FAILS = ["--", "sh", "-c", "echo ValueError: loss is nan; exit 3"]
FAILS_ONCE = (
    "while [ $STACK_ATTEMPT = 1 ] && [ ! -e /out/fail ]; do sleep 0.1; done\n"
    "[ $STACK_ATTEMPT = 2 ] && sleep 600\n"
    "exit 3\n"
)


def pod_of(submitter: Submitter, name: str) -> str:
    """The pod of a run of one node that has not ended."""
    found = [pod for pod in submitter.pods(name) if pod["status"]["phase"] == "Running"]
    return str(found[0]["metadata"]["name"])


def log_file(cluster: OwnCluster, submitter: Submitter, name: str) -> Path:
    """The file that holds the log of a run of one node, on its machine."""
    pod = submitter.pods(name)[0]
    about, node = pod["metadata"], cluster.nodes.index(pod["spec"]["nodeName"])
    pods = cluster.site.node_folder(node) / "var-log" / "pods"
    return pods / f"{submitter.namespace}_{about['name']}_{about['uid']}" / "node" / "0.log"


@pytest.fixture
def with_sidecar(submitter: Submitter, own_cluster: OwnCluster, tmp_path: Path) -> Iterator[Submitter]:
    """Submits to a namespace where a webhook adds a container that nobody can opt out of."""
    container = {
        "name": "mesh-proxy",
        "image": submitter.image,
        "command": ["sh", "-c", "trap exit TERM; sleep 600 & wait"],  # it goes when it is told to, as a mesh's does
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    patch = json.dumps([{"op": "add", "path": "/spec/containers/-", "value": container}])
    change = {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(patch.encode()).decode()}
    with surroundings.webhook(own_cluster, submitter.namespace, tmp_path, "Mutating", "pods", lambda _pod: change):
        yield submitter


def test_a_sidecar_that_stays_up_keeps_no_run_running(with_sidecar: Submitter, shared_claim: Path) -> None:
    """Nor does the one beside what reads a claim keep that from ending."""
    with_sidecar.submit("good", *PLAIN, "--nodes", "2", "--volume", "shared", "--", "echo", "here")
    with_sidecar.submit("bad", *PLAIN, *FAILS)
    waited = with_sidecar.stackctl("wait", "good")
    assert waited.returncode == 0, waited.stderr
    assert "its pods stay, for the container mesh-proxy" in waited.stderr
    status = with_sidecar.told("status", "good")
    assert (status["state"], status["kept_by"]) == ("succeeded", ["mesh-proxy"])
    waited = with_sidecar.stackctl("wait", "bad")
    assert waited.returncode == 1, waited.stderr
    for words in ("the container mesh-proxy on 1 of 1 nodes (0)", "stackctl cancel bad", "loss is nan"):
        assert words in waited.stderr
    assert with_sidecar.told("explain", "bad")["cause"] == "sidecar"
    assert with_sidecar.status("bad").state == "failed"
    listed = json.loads(with_sidecar.stackctl("list", "--json").stdout)
    assert {row["name"]: row["state"] for row in listed} == {"good": "succeeded", "bad": "failed"}
    with_sidecar.cancel("good")
    with_sidecar.cancel("bad")
    assert with_sidecar.stackctl("logs", "good").stdout.splitlines() == ["[0] here", "[1] here"]


def test_a_replacement_that_is_refused_is_explained_by_what_refuses_it(submitter: Submitter) -> None:
    """And once it is let in, the failure before it is past."""
    submitter.submit("again", *PLAIN, "--", "sh", "-c", FAILS_ONCE)
    submitter.wait_for("again", "running", 60)
    submitter.kubectl("create", "quota", "none", "--hard=pods=0")
    until(lambda: "pods" in submitter.kubectl("get", "quota", "none", "--output=jsonpath={.status.hard}"), 30)
    submitter.kubectl("exec", pod_of(submitter, "again"), "--", "touch", "/out/fail")
    found = submitter.wait_for_cause("again", "quota too small", 90)
    assert "none" in found.sentence
    assert "rank 0 (node 0, local rank 0" in found.before
    submitter.kubectl("delete", "quota", "none")
    submitter.wait_for("again", "running", 120)
    found = submitter.explain("again")
    assert (found.cause, found.sentence) == ("running", "again runs: attempt 2")
    assert "it exited with code 3" in found.before
    submitter.cancel("again")


def test_an_interruption_is_past_once_the_run_is_up_again_and_takes_no_retry(shared_submitter: Submitter) -> None:
    shared_submitter.submit("interrupted", *PLAIN, "--retries", "0", *SLEEP)
    shared_submitter.wait_for("interrupted", "running", 60)
    shared_submitter.kubectl("delete", "pod", pod_of(shared_submitter, "interrupted"), "--wait=false")
    until(lambda: shared_submitter.status("interrupted").attempt == 2, 60)
    now = shared_submitter.wait_for("interrupted", "running", 60)
    assert (now.attempt, now.attempts) == (2, 2)
    assert shared_submitter.explain("interrupted").cause == "running"
    shared_submitter.cancel("interrupted")


def test_a_claim_that_waits_for_whoever_should_make_its_volume(submitter: Submitter) -> None:
    name = submitter.namespace  # a class is the whole cluster's
    asked = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kinds = {"slow": (name, "nobody.test/none"), "local": (f"{name}-local", "kubernetes.io/no-provisioner")}
    for claim, (storage, provisioner) in kinds.items():
        made = {"provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
        submitter.cluster.apply(
            {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": storage}, **made},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim, "namespace": name},
             "spec": {**asked, "storageClassName": storage}},
        )  # fmt: skip
    try:
        submitter.submit("waits", *PLAIN, "--volume", "slow", "--", "true")
        found = submitter.wait_for_cause("waits", "claim")
        assert f"slow (storage class {name})" in found.sentence
        until(lambda: "nobody.test/none" in submitter.explain("waits").text, 30, lambda: submitter.explain("waits"))
        submitter.cancel("waits")
        submitter.submit("local", *PLAIN, "--volume", "local", "--", "true")
        assert "available persistent volumes to bind" in submitter.wait_for_cause("local", "claim").text
        submitter.cancel("local")
    finally:
        submitter.cluster.kubectl("delete", "storageclass", name, f"{name}-local")


def test_a_namespace_that_is_deleted_with_a_run_in_it(cluster: Cluster, pod_image: str, tmp_path: Path) -> None:
    with new_namespace(cluster) as name:
        submitter = Submitter(cluster, name, pod_image, tmp_path, cluster.kubeconfig)
        submitter.submit("last", *PLAIN, *SLEEP)
        submitter.wait_for("last", "running", 60)
        limited = access.Submitter(cluster, name, tmp_path)
        cluster.kubectl("delete", "namespace", name, "--wait=false")
        waited = submitter.stackctl("wait", "last")
    assert waited.returncode == 1, waited.stderr
    assert f"its namespace {name}, which is being deleted" in waited.stderr
    assert "`stackctl cancel last` removes the run" in waited.stderr
    may_only_submit = Submitter(cluster, name, pod_image, tmp_path, limited.path)
    assert "is being deleted" in may_only_submit.stackctl("status", "last").stdout
    assert may_only_submit.told("explain", "last")["cause"] == "namespace"
    done = may_only_submit.stackctl("cancel", "last")
    assert done.returncode == 0, done.stderr
    until(lambda: cluster.kubectl("get", "namespace", name, check=False).returncode != 0, 60)


def test_a_rank_that_ends_as_a_stop_would_end_it_takes_a_retry(shared_submitter: Submitter) -> None:
    shared_submitter.submit("timed", *PLAIN, "--retries", "1", "--", "sh", "-c", "exit 143")
    now = shared_submitter.wait_for("timed", "failed", 120)
    assert (now.attempt, now.attempts) == (2, 2)
    found = shared_submitter.explain("timed")
    assert found.cause == "rank failed"
    assert "exited with code 143, though nothing had told the job to stop" in found.sentence


def test_logs_that_a_machine_has_rotated_away_are_whole_where_they_were_followed(
    shared_submitter: Submitter, own_cluster: OwnCluster
) -> None:
    count = "import time; print(*range(1000), sep='\\n', flush=True)"
    shared_submitter.submit("rotated", *PLAIN, "--follow", "--", "python", "-c", count)
    file = log_file(own_cluster, shared_submitter, "rotated")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[-10:]))
    whole = [f"[0] {number}" for number in range(1000)]
    for words in (["logs", "rotated"], ["logs", "-f", "rotated"], ["logs", "rotated"]):
        done = shared_submitter.stackctl(*words)
        lines = [line for line in done.stdout.splitlines() if line.startswith("[0] ")]
        assert lines == (whole[-10:] if "-f" in words else whole)
        assert "-f" in words or "the cluster has only the end of the log of node 0" in done.stderr
    file.unlink()
    done = shared_submitter.stackctl("logs", "rotated")
    assert [line for line in done.stdout.splitlines() if line.startswith("[0] ")] == whole
    assert "stackctl: the log of node 0 cannot be read: " in done.stdout
    shared_submitter.kubectl("delete", "pods", "--selector", "stackctl.io/run=rotated")
    done = shared_submitter.stackctl("logs", "rotated")
    assert [line for line in done.stdout.splitlines() if line.startswith("[0] ")] == whole
    assert "as they were followed" in done.stderr


def test_what_the_cluster_warns_of_is_told_whole(submitter: Submitter, own_cluster: OwnCluster, tmp_path: Path) -> None:
    said: dict[str, Any] = {"allowed": True, "warnings": ['the team "vision" is over its share, says "finance"']}
    with surroundings.webhook(own_cluster, submitter.namespace, tmp_path, "Validating", "jobs", lambda _job: said):
        done = submitter.stackctl("submit", "--image", submitter.image, "--dry-run=server", *PLAIN[1:], "--", "true")
        assert done.returncode == 0, done.stderr
        assert "managedFields" not in done.stdout
        long = ["true", *["w" * 1000] * 250]
        done = submitter.stackctl("submit", "--image", submitter.image, "--dry-run=server", *PLAIN[1:], "--", *long)
        assert done.returncode == 0, done.stderr
        done = submitter.stackctl("submit", "--image", submitter.image, "--grace", "0", "--wait", "--", "true")
    assert done.returncode == 0, done.stderr
    assert 'the cluster warns: the team "vision" is over its share, says "finance"' in done.stderr


@pytest.fixture
def image_with_entrypoint(own_cluster: OwnCluster, pod_image: str) -> Iterator[str]:
    with with_entrypoint(pod_image) as tag:
        own_cluster.load_image(tag)
        yield tag


def test_an_image_with_an_entrypoint_of_its_own(shared_submitter: Submitter, image_with_entrypoint: str) -> None:
    words = ["submit", "--image", image_with_entrypoint, "--name", "own", *PLAIN, "--follow"]
    done = shared_submitter.stackctl(*words, "--", "echo", "here")
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["[0] here"]), done.stderr
