"""What goes wrong on a cluster, and what `stackctl explain` says of it.

The drills run at once, to be over soon, and share the GPUs: while `late` waits for room, 4 and 3 are left on the nodes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

CRASH = """\
import os, sys, time
if os.environ["RANK"] == "1":
    time.sleep(1)
    sys.exit("ValueError: loss is nan")
time.sleep(60)
"""
UNTIL_REPLACED = "import os, time; time.sleep(600 * (os.environ['STACK_ATTEMPT'] == '1'))"

DRILLS = {
    "no-room": (["--nodes", "2", "--gpus", "9", "--device", "cpu", "--", "true"], "unschedulable", "nvidia.com/gpu"),
    "no-registry": (["--image", "registry.invalid/none:1", "--", "true"], "image pull", "registry.invalid"),
    "no-claim": (["--volume", "absent", "--", "true"], "claim", "absent"),
    "no-secret": (["--secret-env", "KEY=absent:key", "--", "true"], "secret", "absent"),
    "no-program": (["--", "no-such-program"], "configuration", "no-such-program"),
    "no-memory": (
        ["--memory", "200Mi", "--", "python", "-c", "x = [bytearray(10**7) for _ in range(99)]"],
        "out of memory",
        "node 0",
    ),
    "crash": (["--nodes", "2", "--", "python", "-c", CRASH], "rank failed", "loss is nan"),
}
"""Options and command; the cause that is found; words of its explanation."""

LATE_SECONDS = 60


def gpus(nodes: int, count: int) -> list[str]:
    """Options of a job that holds GPUs without using them."""
    return ["--no-preflight", "--retries", "0", "--nodes", str(nodes), "--gpus", str(count), "--device", "cpu"]


def running_pods(submitter: Submitter, name: str) -> int:
    return sum(node.state == "running" for node in submitter.status(name).nodes)


@pytest.fixture(scope="module")
def late(shared_submitter: Submitter, own_cluster: OwnCluster) -> float:
    """A run `late`, one of whose nodes has no room while the run `holder` is there; when the other one started."""
    shared_submitter.submit("holder", *gpus(1, 5), "--grace", "0", "--", "sleep", "600")
    shared_submitter.wait_for("holder", "running", 60)
    shared_submitter.submit("late", *gpus(2, 5), "--", "true")
    until(lambda: running_pods(shared_submitter, "late") == 1, 60, lambda: shared_submitter.explain("late"))
    return time.monotonic()


@pytest.fixture(scope="module")
def drills(shared_submitter: Submitter) -> Submitter:
    """Submits every drill."""
    with ThreadPoolExecutor(4) as pool:
        options = ["--no-preflight", "--retries", "0"]
        list(pool.map(lambda name: shared_submitter.submit(name, *options, *DRILLS[name][0]), DRILLS))
    return shared_submitter


def test_a_node_that_never_comes(shared_submitter: Submitter, late: float) -> None:
    shared_submitter.submit("never", *gpus(3, 3), "--timeout", "8", "--", "true")
    until(lambda: running_pods(shared_submitter, "never") == 2, 60, lambda: shared_submitter.explain("never"))
    missing = next(node.node for node in shared_submitter.status("never").nodes if node.host == "")
    shared_submitter.wait_for("never", "failed", 60)
    found = shared_submitter.explain("never")
    assert found.cause == "peers missing"
    assert f"node {missing} of 3 never came" in found.sentence


@pytest.mark.parametrize("drill", DRILLS)
def test_a_drill_is_explained(drills: Submitter, drill: str) -> None:
    _, cause, saying = DRILLS[drill]
    drills.wait_for_cause(drill, cause)
    told = drills.told("explain", drill)
    assert told["cause"] == cause
    assert saying in json.dumps(told)


def test_a_run_that_waits_is_cancelled_whole(drills: Submitter) -> None:
    drills.wait_for_cause("no-room", "unschedulable")
    drills.cancel("no-room")


def test_a_quota_that_is_used_up(submitter: Submitter) -> None:
    submitter.kubectl("create", "quota", "none", "--hard=pods=0")
    until(lambda: "pods" in submitter.kubectl("get", "quota", "none", "--output=jsonpath={.status.hard}"), 20)
    refused = submitter.stackctl("submit", "--image", submitter.image, "--", "true")
    assert refused.returncode == 3
    assert "the quota none has pods 0 of 0 left, and the job needs 1" in refused.stderr
    submitter.submit("full", "--no-preflight", "--", "true")
    assert "none" in submitter.wait_for_cause("full", "quota too small").sentence


def test_a_service_that_is_deleted(shared_submitter: Submitter) -> None:
    """Without the Service the nodes cannot find node 0. The job is suspended until it is gone."""
    words = ["--no-preflight", "--retries", "0", "--queue", "none", "--nodes", "2", "--timeout", "5"]
    shared_submitter.submit("unserved", *words, "--", "true")
    assert shared_submitter.explain("unserved").cause == "queued"
    shared_submitter.kubectl("delete", "service", "unserved")
    shared_submitter.kubectl("patch", "job", "unserved", "--patch", '{"spec": {"suspend": false}}')
    shared_submitter.wait_for("unserved", "failed", 90)
    assert shared_submitter.explain("unserved").cause == "no service"


def test_a_node_that_comes_a_minute_late(shared_submitter: Submitter, late: float) -> None:
    """The node that is there waits for the other one, and the job succeeds at once."""
    assert "nvidia.com/gpu" in shared_submitter.wait_for_cause("late", "unschedulable").sentence
    time.sleep(max(0.0, late + LATE_SECONDS - time.monotonic()))
    shared_submitter.cancel("holder")
    assert shared_submitter.wait_for("late", "succeeded", 60).attempt == 1


@pytest.fixture
def drained(submitter: Submitter, own_cluster: OwnCluster) -> Iterator[str]:
    """A run on both nodes, one of which was drained and is open again afterwards."""
    node = own_cluster.nodes[1]
    words = [*gpus(2, 8), "--grace", "5", "--", "python", "-c", UNTIL_REPLACED]
    submitter.submit("drained", *words)
    submitter.wait_for("drained", "running", 60)
    try:
        only = "--pod-selector=stackctl.io/run=drained"  # what other tests have left there may take its time
        own_cluster.kubectl("drain", node, only, "--delete-emptydir-data", "--force")
        yield node
    finally:
        own_cluster.kubectl("uncordon", node)


def test_a_drained_node_does_not_count_as_a_failure(
    submitter: Submitter, own_cluster: OwnCluster, drained: str
) -> None:
    until(lambda: submitter.explain("drained").cause in ("disrupted", "unschedulable"), 60)
    own_cluster.kubectl("uncordon", drained)
    assert submitter.wait_for("drained", "succeeded", 90).attempt >= 2, "and there were no retries"
