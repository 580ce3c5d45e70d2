"""The reference job on a cluster: with 16 ranks, as on other backends, and through the loss of a rank or a node.

Restarts happen with nobody watching: the job goes on from its checkpoint, and ends with the same parameters.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.submitting import Submitter
from tests.commands import Stackctl
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster", "docker", "torch")

SMALL = ["--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch-size", "4", "--threads", "1",
         "--eval-tokens", "2000", "--sample-tokens", "20"]  # fmt: skip
"""Options of the GPT trainer for a model that is trained in seconds."""

FOUR_RANKS = ["--nodes", "2", "--procs", "2", "--seed", "5"]
TWO_RANKS = ["--nodes", "2", "--procs", "1", "--seed", "5"]
SHORT = ["--", "--steps", "12", *SMALL]
LM = ["--", "--steps", "8", "--context", "32", "--batch-size", "8", "--micro-batch", "2", "--eval-tokens", "2000"]
CHECKPOINTED = ["--", "--steps", "80", "--checkpoint-every", "4", *SMALL]


def parameters(path: Path) -> str:
    """The sha256 of the parameters that a result.json tells of."""
    return str(json.loads(path.read_text())["params_sha256"])


def here(stackctl: Stackctl, folder: Path, *words: str, workload: str = "gpt") -> str:
    """The parameters of the job on this machine."""
    done = stackctl("run", workload, "--out", str(folder), *words)
    assert done.returncode == 0, done.stderr
    return parameters(folder / "result.json")


@pytest.fixture
def unbroken(stackctl: Stackctl, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The parameters that two ranks end with when nothing happens to them; trained once."""
    folder = tmp_path_factory.getbasetemp() / "unbroken"
    if folder.exists():
        return parameters(folder / "result.json")
    return here(stackctl, folder, *TWO_RANKS, *CHECKPOINTED)


def first_checkpoint(submitter: Submitter, claim: Path, name: str) -> None:
    """Wait until a run has written one."""
    submitter.wait_for(name, "running", 120)
    until(lambda: any((claim / name / "checkpoints").glob("step-*.pt")), 120, lambda: submitter.explain(name))


def kill_rank(run: str, rank: int) -> None:
    """Kill a rank of a run, which is a process of this machine."""
    wanted = {f"STACK_RUN={run}".encode(), f"RANK={rank}".encode()}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted <= set(path.read_bytes().split(b"\0")):
                os.kill(int(path.parent.name), signal.SIGKILL)
                return
        except OSError:
            continue
    raise AssertionError(f"{run} has no rank {rank} here")


def test_two_nodes_of_eight_gpus_train_the_gpt(submitter: Submitter) -> None:
    """16 ranks on two kubelets; the loss falls, the logs come by rank, the result is copied out."""
    words = ["gpt", "--nodes", "2", "--gpus", "8", "--device", "cpu", "--follow", "--image", submitter.image]
    done = submitter.stackctl("submit", "--name", "train", *words, "--", "--steps", "20", *SMALL, timeout=400)
    assert done.returncode == 0, done.stderr
    folder = submitter.folder("train")
    result = json.loads((folder / "result.json").read_text())
    assert result["world_size"] == 16
    assert result["last_train_loss"] < result["first_train_loss"]
    assert {path.name for path in (folder / "logs" / "attempt-1").glob("rank-*.log")} == {
        f"rank-{rank}.log" for rank in range(16)
    }
    assert {int(rank) for rank in re.findall(r"^\[ *(\d+)\] ", done.stdout, re.MULTILINE)} == set(range(16))
    assert len({node.host for node in submitter.status("train").nodes}) == 2
    assert submitter.status("train").state == "succeeded"
    assert submitter.explain("train").cause == "succeeded"


@pytest.mark.parametrize(("workload", "arguments"), [("gpt", SHORT), ("lm", LM)])
def test_the_same_job_gives_the_same_parameters_on_every_backend(
    workload: str, arguments: list[str], submitter: Submitter, image: str, stackctl: Stackctl, tmp_path: Path
) -> None:
    submitter.submit("parity", workload, *FOUR_RANKS, "--wait", *arguments)
    compose = ["--on", "compose", *FOUR_RANKS, *arguments]
    found = {
        "kubernetes": parameters(submitter.folder("parity") / "result.json"),
        "compose": here(stackctl, tmp_path / "compose", *compose, workload=workload),
        "local": here(stackctl, tmp_path / "local", *FOUR_RANKS, *arguments, workload=workload),
    }
    assert len(set(found.values())) == 1, found


def test_a_killed_rank(submitter: Submitter, shared_claim: Path, unbroken: str) -> None:
    submitter.submit("rank", "gpt", *TWO_RANKS, "--volume", "shared", *CHECKPOINTED)
    first_checkpoint(submitter, shared_claim, "rank")
    kill_rank("rank", 1)
    until(lambda: submitter.status("rank").attempt == 2, 90, lambda: submitter.status("rank"))
    failure = json.loads((shared_claim / "rank" / "logs" / "attempt-1" / "failure.json").read_text())
    assert (failure["rank"], failure["signal"]) == (1, "SIGKILL")
    submitter.wait_for("rank", "succeeded", 180)
    assert parameters(shared_claim / "rank" / "result.json") == unbroken


def test_a_killed_node(submitter: Submitter, own_cluster: OwnCluster, shared_claim: Path, unbroken: str) -> None:
    """A machine that is lost: its kubelet and pods are killed, and a cloud's controller removes its Node object."""
    apart = ["--cpu", f"{(os.cpu_count() or 1) * 550}m"]  # a node has the machine's CPUs: too few for two such pods
    submitter.submit("node", "gpt", *TWO_RANKS, *apart, "--volume", "shared", *CHECKPOINTED)
    first_checkpoint(submitter, shared_claim, "node")
    lost = submitter.status("node").nodes[1]
    own_cluster.kill_node(lost.host)
    try:
        assert lost.host in submitter.wait_for_cause("node", "node lost").sentence
        own_cluster.delete_node_object(lost.host)
        present = ["get", "pod", lost.pod, "--output=name", "--ignore-not-found"]
        until(lambda: submitter.kubectl(*present) == "", 120, lambda: submitter.status("node"))
    finally:
        own_cluster.restart_node(lost.host)
    assert submitter.wait_for("node", "succeeded", 180).attempt >= 2
    assert parameters(shared_claim / "node" / "result.json") == unbroken
