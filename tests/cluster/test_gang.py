"""Runs that get some of their nodes only, and nodes on which runs fail again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.submitting import Submitter
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker")

NODE = ["--gpus", "8", "--device", "cpu"]
"""A whole node of the tests' cluster."""


@pytest.fixture(autouse=True)
def free_nodes(submitter: Submitter) -> None:
    """Wait until what earlier tests ran has gone: they do not wait for the end of their namespaces."""

    def holding() -> list[str]:
        pods = submitter.cluster.get("pods", "--all-namespaces", "--field-selector=spec.nodeName!=")["items"]
        return [
            pod["metadata"]["name"]
            for pod in pods
            if pod["status"]["phase"] in ("Pending", "Running")
            and any("nvidia.com/gpu" in row["resources"].get("limits", {}) for row in pod["spec"]["containers"])
        ]

    until(lambda: not holding(), 90, holding)


def test_a_gang_that_cannot_be_placed_whole_gives_its_gpus_back(submitter: Submitter) -> None:
    submitter.submit("large", *NODE, "--", "sleep", "600")
    submitter.wait_for("large", "running", 60)
    words = ["--nodes", "2", *NODE]
    refused = submitter.stackctl("submit", "--image", submitter.image, *words, "--", "true")
    assert (refused.returncode, "1 of 2 nodes fit now" in refused.stderr) == (3, True), refused.stderr
    assert "a node that has a place then gives it back after 300 s (--timeout)" in refused.stderr
    submitter.submit("gang", *words, "--no-preflight", "--retries", "0", "--timeout", "10", "--", "true")

    def said() -> str:
        return submitter.explain("gang").sentence

    here = submitter.status("large").nodes[0].host
    held = f"large holds 8 nvidia.com/gpu on {here}"
    until(lambda: "it holds 8 nvidia.com/gpu on" in said() and held in said(), 60, said)
    submitter.wait_for("gang", "failed", 60)
    submitter.submit("next", *NODE, "--", "true")  # which is refused where there is no room
    submitter.wait_for("next", "succeeded", 60)
    assert submitter.explain("gang").cause == "peers missing"


def test_a_node_that_fails_runs_is_named(submitter: Submitter, tmp_path: Path) -> None:
    bad = submitter.cluster.nodes[0]
    profile = tmp_path / "bad.toml"
    profile.write_text(f'summary = "one node"\nselector = {{ "kubernetes.io/hostname" = "{bad}" }}\n')
    words = ["--profile", str(profile), "--gpus", "1", "--device", "cpu", "--retries", "0"]
    for name in ("a", "b"):
        submitter.submit(name, *words, "--", "python", "-c", "raise SystemExit('ECC error')")
        submitter.wait_for(name, "failed", 60)
    submitter.submit("c", *words, "--", "sleep", "600")
    submitter.wait_for("c", "running", 60)
    said = f"{bad} has failed 2 runs in the last day: a (rank failed), b (rank failed)"
    for command in ("status", "explain"):
        assert said in submitter.stackctl(command, "c").stdout.splitlines()
        assert submitter.told(command, "c")["failed_nodes"] == [said]
    words = ["--gpus", "1", "--device", "cpu", "--exclude-node", "auto"]
    done = submitter.stackctl("submit", "--image", submitter.image, "--name", "d", *words, "--", "sleep", "600")
    assert (done.returncode, f"note: {said}: left out" in done.stderr) == (0, True), done.stderr
    assert submitter.wait_for("d", "running", 60).nodes[0].host not in ("", bad)
