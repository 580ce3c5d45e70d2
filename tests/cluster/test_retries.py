"""Restarts with nobody watching: the whole job starts anew from its checkpoint, and ends with the same bits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import SMALL, Submitter, locally, until

pytestmark = pytest.mark.needs("cluster", "docker", "torch")

TRAINING = ["--", "--steps", "40", "--checkpoint-every", "4", *SMALL]

KILL_RANK = """\
import os, pathlib, signal
for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    try:
        env = path.read_bytes().split(b"\\0")
    except OSError:
        continue
    if b"RANK=3" in env:
        os.kill(int(path.parent.name), signal.SIGKILL)
"""


def checkpoints(claim: Path, name: str) -> list[Path]:
    return list((claim / name / "checkpoints").glob("step-*.pt"))


def ends_as_unbroken(submitter: Submitter, claim: Path, name: str, folder: Path, *words: str) -> None:
    """Wait for the end of a run, and compare its parameters with those of the same job as processes here."""
    submitter.wait_for(name, "succeeded", 180)
    result = json.loads((claim / name / "result.json").read_text())
    assert result["params_sha256"] == locally(folder, *words, *TRAINING)["params_sha256"]


def test_a_killed_rank(submitter: Submitter, shared_claim: Path, tmp_path: Path) -> None:
    words = ["--nodes", "2", "--procs", "2", "--seed", "5"]
    submitter.submit("rank", "gpt", *words, "--volume", "shared", *TRAINING)
    until(lambda: bool(checkpoints(shared_claim, "rank")), 120, lambda: submitter.explain("rank"))
    submitter.kubectl("exec", submitter.pods("rank")[1]["metadata"]["name"], "--", "python", "-c", KILL_RANK)
    until(lambda: submitter.status("rank")["attempt"] == 2, 90, lambda: submitter.status("rank"))
    failure = json.loads((shared_claim / "rank" / "logs" / "attempt-1" / "failure.json").read_text())
    assert (failure["rank"], failure["signal"]) == (3, "SIGKILL")
    ends_as_unbroken(submitter, shared_claim, "rank", tmp_path, *words)


def test_a_killed_node(submitter: Submitter, own_cluster: OwnCluster, shared_claim: Path, tmp_path: Path) -> None:
    """A machine that is lost: its kubelet and pods are killed, and a cloud's controller removes its Node object."""
    words = ["--nodes", "2", "--procs", "1", "--seed", "5"]
    apart = ["--cpu", f"{(os.cpu_count() or 1) * 550}m"]  # a node has the machine's CPUs: too few for two such pods
    submitter.submit("node", "gpt", *words, *apart, "--volume", "shared", *TRAINING)
    until(lambda: bool(checkpoints(shared_claim, "node")), 120, lambda: submitter.explain("node"))
    pod = submitter.pods("node")[1]
    lost = pod["spec"]["nodeName"]
    own_cluster.kill_node(lost)
    try:
        until(lambda: submitter.explain("node")["cause"] == "node lost", 60, lambda: submitter.explain("node"))
        assert lost in submitter.explain("node")["sentence"]
        own_cluster.delete_node_object(lost)
        present = ["get", "pod", pod["metadata"]["name"], "--output=name", "--ignore-not-found"]
        until(lambda: submitter.kubectl(*present) == "", 120, lambda: submitter.status("node"))
    finally:
        own_cluster.restart_node(lost)
    ends_as_unbroken(submitter, shared_claim, "node", tmp_path, *words)
    assert submitter.status("node")["attempt"] >= 2
