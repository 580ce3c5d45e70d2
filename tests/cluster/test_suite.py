"""`stackctl test --on kubernetes`: a pod a node, one report, the bad node named, nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator

import jsonschema
import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.commands import ROOT, STACKCTL, environment, hear_signals
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

SCHEMA = json.loads((ROOT / "images/stackrt/checks/report.schema.json").read_text())
QUICK = ["--on", "kubernetes", "--gpus", "0"]


def started(submitter: Submitter) -> subprocess.Popen[str]:
    """The whole suite on two nodes, which takes a while."""
    argv = [STACKCTL, "test", submitter.image, *QUICK, "--namespace", submitter.namespace, "--nodes", "2"]
    env = environment(KUBECONFIG=str(submitter.kubeconfig), STACK_RUNS=str(submitter.store))
    return subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals)


@pytest.fixture
def starved(own_cluster: OwnCluster) -> Iterator[str]:
    """A node that keeps almost all memory for itself: its pods get a small /dev/shm, whatever they ask for."""
    name = own_cluster.nodes[1]
    path = own_cluster.site.node_folder(1) / "kubelet.json"
    healthy = path.read_text()
    total = own_cluster.get("node", name)["status"]["capacity"]["memory"]
    assert total.endswith("Ki")
    left = 108 * 2**10  # KiB: 8 MiB for pods beside the 100 MiB at which the kubelet evicts them
    reserved = {"systemReserved": {"memory": f"{int(total[:-2]) - left}Ki"}}
    own_cluster.kill_node(name)
    path.write_text(json.dumps({**json.loads(healthy), **reserved}))
    own_cluster.restart_node(name)
    yield name
    own_cluster.kill_node(name)
    path.write_text(healthy)
    own_cluster.restart_node(name)


def test_the_bad_node_is_named(submitter: Submitter, starved: str) -> None:
    file = submitter.store / "report.json"
    words = ["--all-nodes", "--only", "shm-size,rendezvous", "--json", str(file)]
    done = submitter.stackctl("test", submitter.image, *QUICK, *words)
    assert done.returncode == 1, done.stderr
    assert f"error: shm-size failed on {starved}" in done.stderr
    report = json.loads(file.read_text())
    jsonschema.validate(report, SCHEMA, cls=jsonschema.Draft202012Validator)
    hosts = [node["host"] for node in report["nodes"]]
    assert sorted(hosts) == sorted(submitter.cluster.nodes), "one pod on each node"
    found = {(row["name"], hosts[row["node"]]): row["status"] for row in report["checks"]}
    assert found.pop(("shm-size", starved)) == "fail"
    assert set(found.values()) == {"pass"}
    until(lambda: submitter.objects() == [], 60, submitter.objects)


@pytest.mark.usefixtures("own_cluster")
def test_gpus_that_a_pod_has_and_cannot_see_are_a_failure(submitter: Submitter) -> None:
    """The nodes of the tests have GPUs in name only."""
    done = submitter.stackctl("test", submitter.image, "--on", "kubernetes", "--nodes", "2", "--only", "lock-match")
    assert done.returncode == 1, done.stderr
    assert "expected  8 GPUs" in done.stdout
    assert "error: required failed on node-" in done.stderr


@pytest.mark.usefixtures("own_cluster")
def test_what_does_not_fit_is_refused(submitter: Submitter) -> None:
    done = submitter.stackctl("test", submitter.image, *QUICK, "--nodes", "3")
    assert done.returncode == 3
    assert "2 of 3 nodes fit now" in done.stderr, "one pod a node, however small it is"
    assert submitter.objects() == []


def test_a_closed_node_is_left_out_and_told(submitter: Submitter, own_cluster: OwnCluster) -> None:
    closed = own_cluster.nodes[0]
    own_cluster.kubectl("cordon", closed)
    try:
        done = submitter.stackctl("test", submitter.image, *QUICK, "--all-nodes", "--only", "lock-match")
    finally:
        own_cluster.kubectl("uncordon", closed)
    assert done.returncode == 0, done.stderr
    assert f"note: not tested: {closed}: cordoned" in done.stderr
    assert "1 passed, 0 failed, in" in done.stdout


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(submitter: Submitter, sent: signal.Signals) -> None:
    with started(submitter) as running:
        until(lambda: any(name.startswith("pod/") for name in submitter.objects()), 60)
        running.send_signal(sent)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "error: interrupted" in said
    until(lambda: submitter.objects() == [], 60, submitter.objects)


def test_a_node_that_is_lost_meanwhile_is_named(submitter: Submitter, own_cluster: OwnCluster) -> None:
    """Its pod cannot end any more, and nobody waits for it."""
    lost = own_cluster.nodes[1]
    with started(submitter) as running:
        assert running.stderr
        assert any(line.startswith("[0] ") for line in running.stderr), "the nodes have met"
        own_cluster.kill_node(lost)
        try:
            _, said = running.communicate(timeout=120)
        finally:
            own_cluster.restart_node(lost)
    assert running.returncode == 1, said
    assert "lost a node" in said
    assert lost in said.partition("error: ")[2]
    until(lambda: submitter.objects() == [], 60, submitter.objects)
