"""A thousand nodes of eight GPUs, and thousands of runs: what commands take there.

The API server, controllers and scheduler are real, and so is the job; kwok plays the kubelets.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from stackctl.engines import kube
from stackctl.errors import MissingHere
from stackctl.jobs import job as jobs
from stackctl.jobs import profiles
from stackctl.jobs.placement import place
from stackctl.runs import preflight, submission, submit
from stackctl.runs.submission import Submission
from tests.cluster.harness import kueue
from tests.cluster.harness.cluster import GIVEN, OwnCluster
from tests.commands import STACKCTL, environment
from tests.support.waiting import until
from tests.timing import fastest

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.quiet]

NODES, RUNS, QUEUED = 1000, 5000, 200
MOST_SECONDS, MOST_PREFLIGHT_SECONDS, MOST_MEBIBYTES, MOST_REQUESTS = 1.0, 2.0, 150, 4


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    """A cluster of simulated nodes."""
    if GIVEN:
        pytest.skip("it needs a thousand simulated nodes, and STACK_TEST_KUBECONFIG is another's cluster")
    cluster = OwnCluster(simulated=NODES)
    yield cluster
    cluster.stop()


@dataclass(frozen=True)
class Took:
    """What a command took and said."""

    seconds: float
    mebibytes: float
    said: str


MEASURE = """
import json, os, subprocess, sys, time
start = time.monotonic()
command = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(command.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_maxrss / 1024], file)
"""
"""Linux counts the memory of what started a program as its own, so a small one starts it, not the tests."""


def run(cluster: OwnCluster, home: Path, *words: str) -> Took:
    """Run a stackctl command on the cluster, which must go well."""
    env = environment(KUBECONFIG=str(cluster.kubeconfig), STACK_RUNS=str(home / "runs"))
    argv = [sys.executable, "-c", MEASURE, str(home / "took"), STACKCTL, *words]
    said = subprocess.run(argv, env=env, cwd=home, stdout=subprocess.PIPE, text=True, check=True).stdout
    code, seconds, mebibytes = json.loads((home / "took").read_text())
    assert code == 0
    return Took(seconds, mebibytes, said)


def assert_quick_and_small(cluster: OwnCluster, home: Path, *words: str) -> None:
    def seconds() -> float:
        took = run(cluster, home, *words)
        assert took.mebibytes <= MOST_MEBIBYTES
        return took.seconds

    assert fastest(seconds, MOST_SECONDS) <= MOST_SECONDS


def prepared(name: str, home: Path, queue: str = "", nodes: int = NODES) -> Submission:
    """A job of all nodes. In a queue that is not there it never starts."""
    job = jobs.make(name=name, arguments=["true"], nodes=nodes, gpus=8)
    placement = place(job, namespace="default", profile=profiles.load("generic"), image="none", queue=queue)
    return submission.prepare(job, placement, None, {"STACK_RUNS": str(home)})


@pytest.fixture(scope="module")
def running(large: OwnCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on all nodes."""
    words = ["--image", "registry.example/image:1", "--nodes", str(NODES), "--gpus", "8", "--", "true"]
    run(large, tmp_path_factory.mktemp("running"), "submit", "--name", "large", *words)

    def ready() -> bool:
        found = large.api.request("GET", "/apis/batch/v1/namespaces/default/jobs/large")
        return bool(found["status"].get("ready") == NODES)

    until(ready, 300)
    return "large"


def test_a_large_job_runs_on_all_nodes_and_is_watched_in_a_second(
    large: OwnCluster, running: str, tmp_path: Path
) -> None:
    now = json.loads(run(large, tmp_path, "status", running, "--json").said)
    assert now["state"] == "running"
    assert len({node["host"] for node in now["nodes"]}) == NODES
    for words in (["status", running], ["explain", running], ["list"]):
        assert_quick_and_small(large, tmp_path, *words)


def test_a_large_job_is_checked_in_two_seconds(
    large: OwnCluster, running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one that has all GPUs: there are as many pods to look at as there will ever be."""
    monkeypatch.setenv("KUBECONFIG", str(large.kubeconfig))

    def seconds() -> float:
        start = time.monotonic()
        with pytest.raises(MissingHere, match=f"0 of {NODES} nodes fit now"):
            preflight.check(kube.Cluster(), prepared("other", tmp_path))
        return time.monotonic() - start

    assert fastest(seconds, MOST_PREFLIGHT_SECONDS) <= MOST_PREFLIGHT_SECONDS


def test_a_large_job_is_submitted_in_a_second_and_four_requests(
    large: OwnCluster, running: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ["--nodes", str(NODES), "--gpus", "8", "--image", "registry.example/image:1", "--queue", "none"]
    assert_quick_and_small(large, tmp_path, "submit", "--no-preflight", *size, "--name", "queued", "--", "true")
    monkeypatch.setenv("KUBECONFIG", str(large.kubeconfig))
    cluster = kube.Cluster()
    submit.create(cluster, prepared("counted", tmp_path, queue="none"))
    assert cluster.calls <= MOST_REQUESTS


def test_a_run_among_hundreds_in_a_queue_is_explained_in_a_second(large: OwnCluster, tmp_path: Path) -> None:
    with kueue.running(large):
        kueue.queue(large, "default", "team", {"nvidia.com/gpu": 8})
        manifest = prepared("one", tmp_path, queue="team", nodes=1).manifests[0]
        names = [f"queued-{number}" for number in range(QUEUED)]
        named = [{**manifest, "metadata": {**manifest["metadata"], "name": name}} for name in names]
        large.create("/apis/batch/v1/namespaces/default/jobs", named)

        def explained() -> str:
            return run(large, tmp_path, "explain", names[-1]).said

        def waiting() -> int:
            """Runs in the queue: there are others in the namespace, of a queue that is not there."""
            found = large.get("workloads", "--namespace=default")["items"]
            return sum(row["spec"]["queueName"] == "team" for row in found)

        until(lambda: waiting() == QUEUED, 120, waiting)
        until(lambda: "runs are before it; queued-" in explained(), 60, explained)
        for words in (["explain", names[-1]], ["list"]):
            assert_quick_and_small(large, tmp_path, *words)


def test_thousands_of_runs_are_listed_in_a_second(large: OwnCluster, tmp_path: Path) -> None:
    large.namespaces.kill("controllers")  # they would look at every one of these runs
    large.kubectl("create", "namespace", "many")
    manifest = prepared("one", tmp_path, queue="none").manifests[0]
    named = ({**manifest["metadata"], "namespace": "many", "name": f"run-{number}"} for number in range(RUNS))
    large.create("/apis/batch/v1/namespaces/many/jobs", [{**manifest, "metadata": row} for row in named])
    words = ["list", "--namespace", "many", "--limit", "0"]
    assert len(run(large, tmp_path, *words).said.splitlines()) == 1 + RUNS
    assert_quick_and_small(large, tmp_path, *words)
