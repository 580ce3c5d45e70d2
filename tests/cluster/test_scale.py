"""A thousand simulated nodes: requests and memory do not grow with them as a person would notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.commands import environment
from tests.integration.running import wait_for

pytestmark = pytest.mark.needs("cluster")

NODES = 1000
PROFILE = """\
summary = "simulated nodes"
selector = { type = "kwok" }
tolerations = [{ key = "kwok.x-k8s.io/node", operator = "Exists" }]
"""

MEASURED = """\
import json, resource, sys, time
from stackctl.engines import kube
made = []
begin = kube.Cluster.__init__
kube.Cluster.__init__ = lambda self, *given: (begin(self, *given), made.append(self))[0]
from stackctl.cli.main import cli
started = time.perf_counter()
try:
    cli.main(sys.argv[1:], standalone_mode=False)
finally:
    spent = {"requests": sum(row.calls for row in made), "seconds": round(time.perf_counter() - started, 2)}
    spent["mebibytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(spent), file=sys.stderr)
"""
"""A command as it is, and what it took."""

MOST_MEBIBYTES = 150


@pytest.fixture
def thousand(own_cluster: OwnCluster) -> Iterator[OwnCluster]:
    own_cluster.add_fake_nodes(NODES)
    yield own_cluster
    own_cluster.remove_fake_nodes()


def measured(cluster: OwnCluster, folder: Path, *words: str) -> tuple[str, dict[str, float]]:
    """The output of a command, and its requests, seconds and memory."""
    env = environment(KUBECONFIG=str(cluster.kubeconfig), STACK_RUNS=str(folder / "runs"))
    argv = [sys.executable, "-c", MEASURED, *words]
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    spent: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    print(words[:1], spent)
    return done.stdout, spent


def test_a_thousand_nodes_take_as_many_requests_as_two(thousand: OwnCluster, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "kwok.toml").write_text(PROFILE)
    job = ["--nodes", str(NODES), "--gpus", "8", "--profile", "./kwok.toml", "--name", "wide", "-n", namespace]
    _, plain = measured(thousand, tmp_path, "submit", *job, "--no-preflight", "--image", "none", "--", "true")
    assert plain["requests"] == 4
    assert plain["mebibytes"] < MOST_MEBIBYTES
    wait_for(lambda: len(thousand.get("pods", "-n", namespace)["items"]) == NODES, 300)
    for words, most in ((["status", "wide", "--json"], 3), (["explain", "wide"], 8), (["list"], 1)):
        _, spent = measured(thousand, tmp_path, *words, "-n", namespace)
        assert spent["requests"] <= most, words
        assert spent["mebibytes"] < MOST_MEBIBYTES, words
    measured(thousand, tmp_path, "cancel", "wide", "-n", namespace)
    wait_for(lambda: not thousand.get("pods", "-n", namespace)["items"], 300)
    again = [*job[:-4], "--name", "again", "-n", namespace, "--image", "none", "--", "true"]
    _, checked = measured(thousand, tmp_path, "submit", *again)
    assert checked["requests"] < 30
    assert checked["mebibytes"] < MOST_MEBIBYTES
