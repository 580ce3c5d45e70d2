"""What a run has kept on its claim is read there when its pods are gone, and when the whole run is gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

SCRIPT = """\
import os, pathlib, sys, time
rank, attempt = os.environ["RANK"], os.environ["STACK_ATTEMPT"]
print("attempt", attempt, "of rank", rank, flush=True)
other = pathlib.Path(os.environ["STACK_OUT"], f"rank-0-of-{attempt}")
if rank == "1":
    while not other.exists():
        time.sleep(0.05)
    sys.exit("ValueError: loss is nan")
other.touch()
time.sleep(60)
"""
WORDS = [
    "--nodes",
    "2",
    "--gpus",
    "1",
    "--device",
    "cpu",
    "--retries",
    "1",
    "--volume",
    "shared",
    "--",
    "python",
    "-c",
    SCRIPT,
]

FAILED = '{range .status.conditions[?(@.type=="Failed")]}failed={.status}{end}'


@pytest.fixture
def tainted(own_cluster: OwnCluster, tmp_path: Path) -> Iterator[str]:
    """Every node is kept for GPUs; gives the file of a profile whose pods may go there."""
    profile = tmp_path / "tainted.toml"
    profile.write_text('summary = "tainted"\ntolerations = [{ key = "gpus-only", operator = "Exists" }]\n')
    own_cluster.kubectl("taint", "nodes", "--all", "gpus-only:NoSchedule")
    yield str(profile)
    own_cluster.kubectl("taint", "nodes", "--all", "gpus-only-")


def readers(submitter: Submitter) -> list[str]:
    return [name for name in submitter.objects() if "stackctl-read-" in name]


def tells_all(submitter: Submitter) -> None:
    """status, explain and logs tell of the run what its pods would, and leave no pod of their own."""
    logs = submitter.stackctl("logs", "crash")
    assert (logs.returncode, logs.stdout.splitlines()) == (
        0,
        ["[0] attempt 2 of rank 0", "[1] attempt 2 of rank 1", "[1] ValueError: loss is nan"],
    ), logs.stderr
    assert "reads what they kept on the claim shared" in logs.stderr
    earlier = submitter.stackctl("logs", "crash", "--attempt", "1", "--rank", "1")
    assert earlier.stdout.splitlines() == ["[1] attempt 1 of rank 1", "[1] ValueError: loss is nan"], earlier.stderr
    explained = submitter.stackctl("explain", "crash").stdout
    assert "rank 1 (node 1, local rank 0" in explained
    assert "| ValueError: loss is nan" in explained
    until(lambda: readers(submitter) == [], 90)


def test_of_a_run_whose_pods_are_gone(submitter: Submitter, shared_claim: Path, tainted: str, tmp_path: Path) -> None:
    """In a namespace that allows a container less CPU than the pod that reads would like to have."""
    limits = [{"type": "Container", "max": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "4"}}]
    meta = {"name": "small", "namespace": submitter.namespace}
    submitter.cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limits}})
    submitter.submit("crash", "--profile", tainted, *WORDS)
    submitter.wait_for("crash", "failed", 120)
    submitter.kubectl("delete", "pods", "--all", "--wait=true")
    tells_all(submitter)
    found = submitter.told("explain", "crash")
    assert (found["cause"], found["attempt"]) == ("rank failed", 2)
    status = submitter.told("status", "crash")
    assert (status["attempt"], status["failure"]["rank"]) == (2, 1)
    store = tmp_path / "of-another"
    store.mkdir()
    tells_all(dataclasses.replace(submitter, store=store))
    submitter.kubectl("delete", "pvc", "shared", "--wait=true")
    done = submitter.stackctl("explain", "crash")
    assert "note: the claim shared was not read" in done.stderr
    assert "crash: failed, attempt" in done.stdout


def test_of_a_run_that_is_gone(submitter: Submitter, shared_claim: Path, tainted: str) -> None:
    """As after a week: its submitter comes back, and nobody has looked meanwhile."""
    submitter.submit("crash", "--profile", tainted, *WORDS)
    until(lambda: "failed=True" in submitter.kubectl("get", "job", "crash", f"--output=jsonpath={FAILED}"), 120)
    submitter.kubectl("delete", "job", "crash", "--wait=true")
    status = submitter.told("status", "crash")
    assert (status["run"]["state"], status["run"]["attempt"], status["failure"]["rank"]) == ("failed", 2, 1)
    tells_all(submitter)
    waited = submitter.stackctl("wait", "crash")
    assert waited.returncode == 1
    assert "rank 1" in waited.stderr
