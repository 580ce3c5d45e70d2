"""What goes wrong on a cluster, and what `stackctl explain` says of it."""

from __future__ import annotations

import json

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter, until

pytestmark = pytest.mark.needs("cluster", "docker")

CRASH = """\
import os, sys, time
if os.environ["RANK"] == "1":
    time.sleep(1)
    sys.exit("ValueError: loss is nan")
time.sleep(60)
"""
FULL = ["--nodes", "2", "--gpus", "8", "--device", "cpu"]
"""Options of a job that takes all of two nodes."""

DRILLS = {
    "no room": (["--nodes", "3", *FULL[2:], "--", "sleep", "9"], "unschedulable", "nvidia.com/gpu"),
    "no such registry": (["--image", "registry.invalid/none:1", "--", "true"], "image pull", "registry.invalid"),
    "no such claim": (["--volume", "absent", "--", "true"], "claim", "absent"),
    "no such secret": (["--secret-env", "KEY=absent:key", "--", "true"], "secret", "absent"),
    "no such program": (["--", "no-such-program"], "configuration", "no-such-program"),
    "out of memory": (
        ["--memory", "200Mi", "--", "python", "-c", "x = [bytearray(10**7) for _ in range(99)]"],
        "out of memory",
        "node 0",
    ),
    "a rank crashes": (["--nodes", "2", "--", "python", "-c", CRASH], "rank failed", "loss is nan"),
}
"""Options and command; the cause that is found; words of its explanation."""


@pytest.mark.parametrize("drill", DRILLS)
def test_a_drill_is_explained(submitter: Submitter, drill: str) -> None:
    words, cause, saying = DRILLS[drill]
    submitter.submit("drill", "--no-preflight", "--retries", "0", *words)
    until(lambda: submitter.explain("drill")["cause"] == cause, 60, lambda: submitter.explain("drill"))
    found = submitter.explain("drill")
    assert saying in json.dumps(found)
    assert submitter.stackctl("cancel", "drill").returncode == 0


def test_what_does_not_fit_is_refused_before_anything_is_created(submitter: Submitter) -> None:
    done = submitter.stackctl("submit", "--image", submitter.image, "--nodes", "3", "--gpus", "8", "--", "true")
    assert done.returncode == 3
    assert "2 of 3 nodes fit" in done.stderr
    assert submitter.objects() == []


def test_a_quota_that_is_used_up(submitter: Submitter) -> None:
    submitter.kubectl("create", "quota", "none", "--hard=pods=0")
    until(lambda: "pods" in submitter.kubectl("get", "quota", "none", "--output=jsonpath={.status.hard}"), 20)
    refused = submitter.stackctl("submit", "--image", submitter.image, "--", "true")
    assert refused.returncode == 3
    assert "quota" in refused.stderr
    submitter.submit("full", "--no-preflight", "--", "true")
    until(lambda: submitter.explain("full")["cause"] == "quota", 30, lambda: submitter.explain("full"))


def test_a_node_that_comes_late(submitter: Submitter, own_cluster: OwnCluster) -> None:
    """One node has room a minute later than the other: the first one waits, and the job succeeds at once."""
    late = own_cluster.nodes[1]
    own_cluster.kubectl("cordon", late)
    try:
        submitter.submit("late", "--no-preflight", *FULL, "--", "true")
        until(lambda: submitter.explain("late")["cause"] == "unschedulable", 30, lambda: submitter.explain("late"))
    finally:
        own_cluster.kubectl("uncordon", late)
    assert submitter.wait_for("late", "succeeded", 60)["attempt"] == 1


def test_a_node_that_never_comes(submitter: Submitter, own_cluster: OwnCluster) -> None:
    missing = own_cluster.nodes[1]
    own_cluster.kubectl("cordon", missing)
    try:
        words = ["--no-preflight", "--retries", "0", *FULL, "--timeout", "3"]
        submitter.submit("never", *words, "--", "true")
        submitter.wait_for("never", "failed", 60)
    finally:
        own_cluster.kubectl("uncordon", missing)
    found = submitter.explain("never")
    assert found["cause"] == "peers missing"
    assert "node 1" in found["sentence"]


def test_a_drained_node_does_not_count_as_a_failure(submitter: Submitter, own_cluster: OwnCluster) -> None:
    drained = own_cluster.nodes[1]
    words = ["--retries", "0", *FULL, "--grace", "5"]
    submitter.submit(
        "drained",
        *words,
        "--",
        "python",
        "-c",
        "import os, time; time.sleep(600 * (os.environ['STACK_ATTEMPT'] == '1'))",
    )
    submitter.wait_for("drained", "running", 60)
    try:
        own_cluster.kubectl("drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
        until(lambda: submitter.explain("drained")["cause"] in ("disrupted", "unschedulable"), 60)
    finally:
        own_cluster.kubectl("uncordon", drained)
    assert submitter.wait_for("drained", "succeeded", 90)["attempt"] >= 2


def test_a_service_that_is_deleted(submitter: Submitter, own_cluster: OwnCluster) -> None:
    """Without the Service the nodes cannot find node 0."""
    late = own_cluster.nodes[1]
    own_cluster.kubectl("cordon", late)
    try:
        words = [
            "--no-preflight",
            "--retries",
            "0",
            "--nodes",
            "2",
            "--gpus",
            "8",
            "--device",
            "cpu",
            "--timeout",
            "20",
        ]
        submitter.submit("unserved", *words, "--", "true")
        submitter.kubectl("delete", "service", "unserved")
    finally:
        own_cluster.kubectl("uncordon", late)
    submitter.wait_for("unserved", "failed", 90)
    found = submitter.explain("unserved")
    assert found["cause"] == "no service"


def test_a_run_that_waits_is_cancelled_whole(submitter: Submitter) -> None:
    submitter.submit("waits", "--no-preflight", "--nodes", "3", *FULL[2:], "--", "sleep", "600")
    until(lambda: submitter.explain("waits")["cause"] == "unschedulable", 30)
    assert submitter.stackctl("cancel", "waits").returncode == 0
    until(lambda: submitter.objects() == [], 60, submitter.objects)
