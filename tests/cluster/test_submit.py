"""`stackctl submit` on a cluster, in health."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cluster.submitting import SMALL, Submitter, locally

pytestmark = pytest.mark.needs("cluster", "docker")

ALL_OPTIONS = """--nodes 2 --procs 2 --cpu 500m --memory 2Gi --shm 64Mi --env A=$b --secret-env KEY=some:key
 --volume data:/data:ro --volume out --queue main --retries 0 -- python -c print('$(A)')"""
SHAPES = {
    "reference job": ["--nodes", "2", "--gpus", "8"],
    "all options": ALL_OPTIONS.split(),
    **{name: ["--nodes", "2", "--gpus", "8", "--profile", name] for name in ("eks", "gke", "aks")},
}


def test_two_nodes_of_eight_gpus_train_the_gpt(submitter: Submitter) -> None:
    """16 ranks on two kubelets; the loss falls, the logs come by rank, the result is copied out."""
    words = ["gpt", "--nodes", "2", "--gpus", "8", "--device", "cpu", "--follow", "--image", submitter.image]
    done = submitter.stackctl("submit", "--name", "train", *words, "--", "--steps", "20", *SMALL, timeout=400)
    assert done.returncode == 0, done.stderr
    folder = submitter.store / "train"
    result = json.loads((folder / "result.json").read_text())
    assert result["world_size"] == 16
    assert result["last_train_loss"] < result["first_train_loss"]
    assert {path.name for path in (folder / "logs" / "attempt-1").glob("rank-*.log")} == {
        f"rank-{rank}.log" for rank in range(16)
    }
    assert {int(rank) for rank in re.findall(r"^\[ *(\d+)\] ", done.stdout, re.MULTILINE)} == set(range(16))
    assert len({pod["spec"]["nodeName"] for pod in submitter.pods("train")}) == 2
    assert submitter.status("train")["state"] == "succeeded"
    assert submitter.explain("train")["cause"] == "succeeded"


@pytest.mark.needs("torch")
def test_the_same_job_gives_the_same_parameters_as_processes_here(submitter: Submitter, tmp_path: Path) -> None:
    words = ["--nodes", "2", "--procs", "2", "--seed", "5"]
    arguments = ["--", "--steps", "6", *SMALL]
    submitter.submit("parity", "gpt", *words, "--wait", *arguments)
    result = json.loads((submitter.store / "parity" / "result.json").read_text())
    assert result["params_sha256"] == locally(tmp_path, *words, *arguments)["params_sha256"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cluster_accepts_every_manifest(submitter: Submitter, shape: str) -> None:
    """By `--dry-run=server`, and as kubectl would apply what a dry run prints."""
    words = [f"--image={submitter.image}", "--name=shape", *SHAPES[shape]]
    done = submitter.stackctl("submit", "--dry-run=server", *words)
    assert done.returncode == 0, done.stderr
    printed = submitter.stackctl("submit", "--dry-run", *words)
    assert printed.returncode == 0, printed.stderr
    applied = submitter.cluster.kubectl("apply", "--dry-run=server", "--filename=-", given=printed.stdout).stdout
    assert len(re.findall(r"created \(server dry run\)", applied)) == 4
    assert submitter.objects() == []


def test_a_submission_may_be_repeated_and_is_cancelled_whole(submitter: Submitter) -> None:
    words = ["--nodes", "2", "--", "sleep", "600"]
    submitter.submit("twice", *words)
    submitter.submit("twice", *words)
    assert len([name for name in submitter.objects() if not name.startswith("pod/")]) == 4
    other = submitter.stackctl(
        "submit", "--image", submitter.image, "--name", "twice", "--nodes", "1", "--", "sleep", "1"
    )
    assert other.returncode == 4
    assert submitter.stackctl("cancel", "twice").returncode == 0
    submitter.kubectl("wait", "jobs,pods,services,secrets,networkpolicies", "--for=delete", "--timeout=60s",
                      "--selector=app.kubernetes.io/managed-by=stackctl")  # fmt: skip
    assert submitter.objects() == []
