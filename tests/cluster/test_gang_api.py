"""Gangs that the cluster's own scheduler places whole: a control plane that can, beside that of the other tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import new_namespace
from tests.cluster.harness import programs
from tests.cluster.harness.cluster import GIVEN, OwnCluster
from tests.cluster.submitting import Submitter, client
from tests.cluster.test_access import ROLE
from tests.cluster.test_access import Submitter as Account
from tests.commands import ROOT, Stackctl
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

GROUPS, BY_JOBS = ("GenericWorkload",), ("GenericWorkload", "WorkloadWithJob")
"""What is switched on: PodGroups; and Jobs that have theirs made."""

NODE = ["--gpus", "8", "--device", "cpu"]
"""A whole node of the tests' cluster, which has two."""

GANG = ["--nodes", "2", *NODE]
SLEEP = ["--", "sleep", "600"]
[GANGS_ROLE, _] = yaml.safe_load_all((ROOT / "k8s" / "base" / "gangs.yaml").read_text())
RULES = GANGS_ROLE["rules"]


@pytest.fixture(scope="module")
def newer(pod_image: str) -> Iterator[OwnCluster]:
    """A cluster of the next release, whose Jobs may be gangs."""
    if GIVEN:
        pytest.skip("it switches features of the control plane, and STACK_TEST_KUBECONFIG is another's cluster")
    cluster = OwnCluster([pod_image], release="kubernetes-next", features=BY_JOBS)
    yield cluster
    cluster.stop()
    client.cache_clear()  # the next cluster may be in its place


@pytest.fixture(scope="module")
def grouped(newer: OwnCluster) -> OwnCluster:
    """The same, where Jobs cannot say that they are gangs; not for the tests that stand before those with it."""
    newer.switch(GROUPS)
    return newer


@pytest.fixture
def me(newer: OwnCluster, pod_image: str, tmp_path: Path) -> Iterator[Submitter]:
    with new_namespace(newer) as name:
        yield Submitter(newer, name, pod_image, tmp_path, newer.kubeconfig)
        newer.kubectl("delete", "jobs", "--all", "--namespace", name)
        until(lambda: not newer.get("pods", "--namespace", name)["items"], 90)


def groups(me: Submitter) -> list[str]:
    """PodGroups of the namespace."""
    return me.kubectl("get", "podgroups", "--output=name").split()


def placed(me: Submitter, name: str) -> list[str]:
    """The nodes that pods of a run have, those of all its attempts."""
    return [pod["spec"]["nodeName"] for pod in me.pods(name) if pod["spec"].get("nodeName")]


def waits(me: Submitter, *words: str) -> None:
    """Submit a gang for which there is one node of two: it holds none, and says who has the other."""
    me.submit("large", *NODE, *SLEEP)
    me.wait_for("large", "running", 90)
    me.submit("gang", *GANG, "--skip-check", "room", *words)
    found = me.wait_for_cause("gang", "gang", 90)
    assert "places all nodes at once or none, and has no room for all 2 nodes" in found.sentence
    held = f"Insufficient nvidia.com/gpu; large holds 8 nvidia.com/gpu on {me.status('large').nodes[0].host}"
    until(lambda: held in me.explain("gang").sentence, 60, lambda: me.explain("gang"))
    assert placed(me, "gang") == []


def test_a_job_says_that_it_is_a_gang(me: Submitter) -> None:
    waits(me, "--retries", "1", "--", "sh", "-c", 'test "$STACK_ATTEMPT" = 2 || exit 9')
    me.submit("next", *NODE, "--", "true")  # which is refused where there is no room
    me.wait_for("next", "succeeded", 90)
    assert placed(me, "gang") == []
    me.cancel("large")
    me.wait_for("gang", "succeeded", 120)
    assert sorted(placed(me, "gang")) == ["node-0", "node-0", "node-1", "node-1"], "each attempt is placed whole"
    assert "podgroup" not in me.stackctl("submit", "--name", "dry", *GANG, "--dry-run=server", *SLEEP).stdout.lower()
    assert me.cluster.get("job", "gang", "-n", me.namespace)["spec"]["scheduling"]
    until(lambda: len(groups(me)) == 2, 60, lambda: groups(me))  # the Job controller makes one for each Job
    me.cancel("gang")
    me.cancel("next")
    until(lambda: groups(me) == [], 60, lambda: groups(me))


def test_nodes_that_are_tested_are_placed_together(me: Submitter) -> None:
    """The suite holds no GPUs of one node while it waits for another."""
    me.submit("large", *NODE, *SLEEP)
    me.wait_for("large", "running", 90)
    words = ["--on", "kubernetes", "--nodes", "2", "--gpus", "8", "--skip-check", "room", "--only", "lock-match"]
    with me.background("test", me.image, *words) as running:
        until(lambda: len(suite_pods(me)) == 2, 60)
        until(lambda: all(unplaced(pod) for pod in suite_pods(me)), 60)
        me.cancel("large")
        _, said = running.communicate(timeout=180)
    assert "note: the cluster places all 2 nodes at once, or none: by the Job's spec.scheduling" in said
    assert "required failed on node-" in said, "it has run; the GPUs are there in name only"


def suite_pods(me: Submitter) -> list[dict[str, Any]]:
    """Pods of the suite."""
    rows: list[dict[str, Any]] = me.cluster.get("pods", "-n", me.namespace)["items"]
    return [row for row in rows if row["metadata"]["name"].startswith("stackctl-test-")]


def unplaced(pod: dict[str, Any]) -> bool:
    """Whether the scheduler has looked at a pod and given it no node."""
    said = {row["type"]: row["status"] for row in pod["status"].get("conditions") or []}
    return said.get("PodScheduled") == "False" and "nodeName" not in pod["spec"]


def test_a_run_has_a_group_where_jobs_cannot_say_it(grouped: OwnCluster, me: Submitter) -> None:
    waits(me, "--", "true")
    me.cancel("large")
    me.wait_for("gang", "succeeded", 90)
    [owner] = me.cluster.get("podgroup", "gang", "-n", me.namespace)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Job", "gang")
    done = me.stackctl("submit", "--image", me.image, "--name", "again", *GANG, *SLEEP)
    assert "note: the cluster places all 2 nodes at once, or none: by a PodGroup of scheduling.k8s.io/" in done.stderr
    me.wait_for("again", "running", 90)
    # At once: pods of the first hold its group while they end, and the second must not be taken into it.
    assert me.stackctl("cancel", "again").returncode == 0
    me.submit("again", *GANG, "--skip-check", "room", *SLEEP)
    me.wait_for("again", "running", 120)
    me.cancel("again")
    until(lambda: groups(me) == ["podgroup.scheduling.k8s.io/gang"], 60, lambda: groups(me))


def test_what_a_dry_run_prints_is_a_gang_and_can_be_cancelled(grouped: OwnCluster, me: Submitter) -> None:
    asked = ["submit", "--image", me.image, "--name", "dry", *GANG]
    plain = me.stackctl(*asked, "--dry-run", *SLEEP)
    assert ("PodGroup" in plain.stdout, "is looked up when the job is submitted" in plain.stderr) == (False, True)
    manifests = me.stackctl(*asked, "--gang", "always", "--dry-run", *SLEEP).stdout
    grouped.kubectl("apply", "--server-side", "--filename=-", given=manifests)
    me.wait_for("dry", "running", 90)
    me.cancel("dry")
    until(lambda: groups(me) == [], 60, lambda: groups(me))


def test_what_a_manager_cannot_say_is_said(grouped: OwnCluster, me: Submitter) -> None:
    kinds = [f"--filename={path}" for path in (programs.folder("jobset") / "bases").glob("*_*.yaml")]
    grouped.kubectl("apply", "--server-side", *kinds)
    established = ["wait", "--for=condition=Established", "--timeout=60s", *kinds]
    until(lambda: grouped.kubectl(*established, check=False).returncode == 0, 60)  # at once they have no conditions
    asked = ["submit", "--image", me.image, "--via", "jobset", *GANG, "--dry-run=server"]
    done = me.stackctl(*asked, *SLEEP)
    assert (done.returncode, "schedulingGroup" in done.stdout) == (0, False), done.stderr
    said = "the cluster's JobSet cannot say that its pods are a gang"
    assert f"note: {said}; nodes get their places one by one" in done.stderr
    sure = me.stackctl(*asked, "--gang", "always", *SLEEP)
    assert (sure.returncode, said in sure.stderr) == (3, True), sure.stderr


def test_each_verb_of_the_role_is_needed(
    grouped: OwnCluster, me: Submitter, stackctl: Stackctl, tmp_path: Path
) -> None:
    account = Account(grouped, me.namespace, tmp_path)
    asked = ["--image", me.image, *GANG, "--skip-check", "room", "--name"]

    def run(without: str, command: str, *words: str) -> Any:
        rules = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != without]} for rule in RULES]
        account.allow([*ROLE["rules"], *rules])
        return stackctl(command, "-n", me.namespace, *words, env={"KUBECONFIG": str(account.path)})

    done = run("create", "submit", *asked, "a", "--dry-run=server", *SLEEP)
    assert "you may not create podgroups (k8s/base/gangs.yaml); nodes get their places one by one" in done.stderr
    me.submit("large", *NODE, *SLEEP)
    me.wait_for("large", "running", 90)
    done = run("", "submit", *asked, "a", *SLEEP)
    assert done.returncode == 0, done.stderr
    until(lambda: "places all nodes at once or none" in run("", "explain", "a").stdout, 60)
    assert "places all nodes at once or none" not in run("get", "explain", "a").stdout
    me.cancel("large")
    manifests = me.stackctl("submit", *asked, "b", "--gang", "always", "--dry-run", *SLEEP).stdout
    grouped.kubectl("apply", "--server-side", "--filename=-", given=manifests)
    assert "you may not remove the run's PodGroup" in run("delete", "cancel", "b").stderr
    assert run("", "cancel", "b").returncode == 0
    until(lambda: "podgroup.scheduling.k8s.io/b" not in groups(me), 60)
