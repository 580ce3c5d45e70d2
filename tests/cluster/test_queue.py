"""Runs in Kueue's queues, with the real Kueue: admitted, kept waiting, preempted, and back from their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.harness import kueue as real
from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.cluster.test_access import ROLE
from tests.cluster.test_access import Submitter as Account
from tests.cluster.test_training import SMALL, first_checkpoint, here, parameters
from tests.commands import ROOT, Stackctl
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

SLEEP = ["--", "sleep", "600"]
EIGHT = ["--queue", "team", "--nodes", "2", "--gpus", "4", "--device", "cpu"]
TRAINING = ["--", "--steps", "60", "--checkpoint-every", "4", *SMALL]
STOP, GO_ON = (json.dumps({"spec": {"stopPolicy": policy}}) for policy in ("Hold", "None"))
ROLE_REFERENCE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
RACK = "example.com/rack"


@pytest.fixture(scope="module")
def kueue(own_cluster: OwnCluster) -> Iterator[OwnCluster]:
    """The cluster with Kueue, for the tests of this module."""
    with real.running(own_cluster):
        yield own_cluster


@pytest.fixture(scope="module")
def priorities(kueue: OwnCluster) -> Iterator[None]:
    """Priority classes `low`, `middle` and `high`."""
    about = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "preemptionPolicy": "Never"}
    names = ("low", "middle", "high")
    kueue.apply(*({**about, "metadata": {"name": name}, "value": value} for value, name in enumerate(names, 1)))
    yield
    kueue.kubectl("delete", "priorityclasses", *names)


@pytest.fixture(scope="module")
def full(kueue: OwnCluster, priorities: None, shared_submitter: Submitter) -> Submitter:
    """A queue `team` of 12 GPUs: q1 has 8 of them, and q2, q3 and q4 wait for 8 each, q4 with a lower priority."""
    real.queue(kueue, shared_submitter.namespace, "team", {"nvidia.com/gpu": 12})
    shared_submitter.submit("q1", *EIGHT, "--priority", "high", *SLEEP)
    shared_submitter.wait_for("q1", "running", 120)
    for name, priority in (("q2", "high"), ("q3", "high"), ("q4", "low")):
        shared_submitter.submit(name, *EIGHT, "--priority", priority, *SLEEP)
    return shared_submitter


def refused(submitter: Submitter, *words: str) -> str:
    """What is said of a submission that is refused beforehand."""
    done = submitter.stackctl("submit", "--image", submitter.image, "--name", "refused", *words, *SLEEP)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert submitter.objects("refused") == []
    return done.stderr


def test_a_full_queue_says_what_is_missing_who_is_before_and_who_holds(full: Submitter) -> None:
    wanted = (
        "q4 waits in its queue: needs 4 nvidia.com/gpu more in flavor default of queue team; "
        "2 runs are before it; q1 holds 8"
    )
    until(lambda: full.explain("q4").sentence == wanted, 60, lambda: full.explain("q4"))
    assert full.status("q4").state == "queued"
    states = {row["name"]: row["state"] for row in json.loads(full.stackctl("list", "--json").stdout)}
    assert states == {"q1": "running", "q2": "queued", "q3": "queued", "q4": "queued"}


def test_what_a_queue_can_never_hold_is_refused(full: Submitter) -> None:
    assert "there is no such queue; known: team" in refused(full, "--queue", "none")
    assert "16 nvidia.com/gpu wanted, 12 at most in flavor default" in refused(full, *EIGHT, "--gpus", "8")
    assert "the queue team has no quota for cpu" in refused(full, *EIGHT, "--cpu", "1")


MISSED = {
    "localqueues": ("submit", "not checked, since you may not ask the cluster: queue (list localqueues)"),
    "clusterqueues": ("submit", "you may not get clusterqueues: whether the quota of team is enough is not known"),
    "workloads": ("explain", "you may not list workloads, which tell why"),
}


def test_each_right_to_see_queues_is_needed(full: Submitter, stackctl: Stackctl, tmp_path: Path) -> None:
    """Without one the rest works, and what cannot be known is said."""
    role, _, wide, _ = yaml.safe_load_all((ROOT / "k8s" / "base" / "queues.yaml").read_text())
    rules = [*role["rules"], *wide["rules"]]
    assert {name for rule in rules for name in rule["resources"]} == set(MISSED)
    account = Account(full.cluster, full.namespace, tmp_path)
    shared = {"kind": "ClusterRole", "metadata": {"name": full.namespace}, "apiVersion": wide["apiVersion"]}
    subject = {"kind": "ServiceAccount", "name": "submitter", "namespace": full.namespace}
    binding = {"roleRef": {**ROLE_REFERENCE, "name": full.namespace}, "subjects": [subject]}

    def told(command: str, lacking: str) -> str:
        account.allow([*ROLE["rules"], *(rule for rule in role["rules"] if lacking not in rule["resources"])])
        seen = [rule for rule in wide["rules"] if lacking not in rule["resources"]]
        full.cluster.apply({**shared, "rules": seen}, {**shared, "kind": "ClusterRoleBinding", **binding})
        words = ["--image", full.image, "--name", "more", *EIGHT, *SLEEP] if command == "submit" else ["q4"]
        done = stackctl(command, "-n", full.namespace, *words, env={"KUBECONFIG": str(account.path)})
        assert done.returncode == 0, done.stderr
        if command == "submit":
            full.cancel("more")
        return done.stdout + done.stderr

    try:
        allowed = {command: told(command, "") for command in ("submit", "explain")}
        for resource, (command, saying) in MISSED.items():
            assert saying not in allowed[command]
            assert saying in told(command, resource)
    finally:
        full.cluster.kubectl("delete", f"clusterrole/{full.namespace}", f"clusterrolebinding/{full.namespace}")


def test_a_queue_that_is_stopped_keeps_its_runs(kueue: OwnCluster, full: Submitter) -> None:
    kueue.kubectl("patch", "localqueue", "team", "-n", full.namespace, "--type=merge", "--patch", STOP)
    try:
        said = "nothing is admitted from queue team: it is stopped"
        until(lambda: said in full.explain("q4").sentence, 60, lambda: full.explain("q4"))
        done = full.stackctl("submit", "--image", full.image, "--name", "held", *EIGHT, *SLEEP)
        assert "note: the queue team admits nothing now: it is stopped" in done.stderr
    finally:
        kueue.kubectl("patch", "localqueue", "team", "-n", full.namespace, "--type=merge", "--patch", GO_ON)


@pytest.mark.needs("torch")
def test_a_run_gives_way_and_comes_back_from_its_checkpoint(
    kueue: OwnCluster, priorities: None, submitter: Submitter, shared_claim: Path, stackctl: Stackctl, tmp_path: Path
) -> None:
    """Three runs for two places. The one with the lowest priority ends with the parameters of a run left alone."""
    real.queue(kueue, submitter.namespace, "pair", {"nvidia.com/gpu": 2})
    one = ["--queue", "pair", "--gpus", "1", "--device", "cpu"]
    submitter.submit("steady", *one, "--priority", "middle", *SLEEP)
    submitter.submit("trained", "gpt", *one, "--priority", "low", "--volume", "shared", "--seed", "5", *TRAINING)
    first_checkpoint(submitter, shared_claim, "trained")
    submitter.submit("urgent", *one, "--priority", "high", *SLEEP)
    submitter.wait_for("trained", "queued", 120)
    submitter.wait_for("urgent", "running", 120)
    assert submitter.status("steady").state == "running"
    wanted = "needs 1 nvidia.com/gpu more in flavor default of queue pair"
    until(lambda: wanted in submitter.explain("trained").sentence, 60, lambda: submitter.explain("trained"))
    said = submitter.explain("trained").sentence
    assert "steady holds 1, urgent holds 1; urgent has taken its place" in said
    reached = max((shared_claim / "trained" / "checkpoints").glob("step-*.pt"))
    submitter.cancel("urgent")
    submitter.wait_for("trained", "succeeded", 180)
    result = shared_claim / "trained" / "result.json"
    assert json.loads(result.read_text())["resumed_from"], reached
    assert parameters(result) == here(stackctl, tmp_path / "alone", "--seed", "5", *TRAINING)


@pytest.fixture
def racks(kueue: OwnCluster) -> Iterator[str]:
    """A node a rack; gives the label that tells racks apart. Kueue mixes up a rack and a node of the same name."""
    for name in kueue.nodes:
        kueue.kubectl("label", "node", name, f"{RACK}=of-{name}", "racked=yes")
    levels = [{"nodeLabel": RACK}, {"nodeLabel": "kubernetes.io/hostname"}]
    spec = {"nodeLabels": {"racked": "yes"}, "topologyName": "racks"}
    kueue.apply(
        {"apiVersion": real.API, "kind": "Topology", "metadata": {"name": "racks"}, "spec": {"levels": levels}},
        {"apiVersion": real.API, "kind": "ResourceFlavor", "metadata": {"name": "racked"}, "spec": spec},
    )
    yield RACK
    for name in kueue.nodes:
        kueue.kubectl("label", "node", name, f"{RACK}-", "racked-")


def test_pods_are_kept_in_a_rack(kueue: OwnCluster, submitter: Submitter, racks: str) -> None:
    real.queue(kueue, submitter.namespace, "racked", {"nvidia.com/gpu": 24}, flavor="racked")
    words = ["--queue", "racked", "--nodes", "2", "--topology", racks]
    submitter.submit("together", *words, "--gpus", "1", "--device", "cpu", *SLEEP)
    submitter.wait_for("together", "running", 120)
    assert len({node.host for node in submitter.status("together").nodes}) == 1
    submitter.submit("apart", *words, "--gpus", "8", *SLEEP)
    said = 'topology "racks"'
    until(lambda: said in submitter.explain("apart").sentence, 60, lambda: submitter.explain("apart"))
