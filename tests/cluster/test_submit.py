"""`stackctl submit` on a cluster: what the cluster takes, what is refused before it, and what is shipped with a job."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.harness.cluster import OwnCluster
from tests.cluster.harness.site import GPUS
from tests.cluster.submitting import Submitter
from tests.commands import ROOT
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

ALL_OPTIONS = """--nodes 2 --procs 2 --cpu 500m --cpu-limit 2 --memory 2Gi --ephemeral-storage 1Gi --shm 64Mi
 --env A=$b --secret-env KEY=some:key
 --volume data:/data:ro --volume out --queue main --retries 0 -- python -c print('$(A)')"""
SHAPES = {
    "reference job": ["--nodes", "2", "--gpus", "8"],
    "all options": ALL_OPTIONS.split(),
    **{name: ["--nodes", "2", "--gpus", "8", "--profile", name] for name in ("eks", "gke", "aks")},
}
SLEEP = ["--", "sleep", "600"]
ALL_GPUS = ["--nodes", "2", "--gpus", str(GPUS), "--device", "cpu"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cluster_accepts_every_manifest(shared_submitter: Submitter, shape: str) -> None:
    """By `--dry-run=server`, and as kubectl would apply what a dry run prints."""
    words = [f"--image={shared_submitter.image}", "--name=shape", *SHAPES[shape]]
    done = shared_submitter.stackctl("submit", "--dry-run=server", *words)
    assert done.returncode == 0, done.stderr
    printed = shared_submitter.stackctl("submit", "--dry-run", *words)
    assert printed.returncode == 0, printed.stderr
    applied = shared_submitter.cluster.kubectl("apply", "--dry-run=server", "--filename=-", given=printed.stdout)
    assert len(re.findall(r"created \(server dry run\)", applied.stdout)) == 4
    assert applied.stderr == ""
    assert shared_submitter.objects("shape") == []


def test_the_cluster_accepts_the_base(shared_submitter: Submitter) -> None:
    """The namespace is only made by the server in thought, so what belongs into it finds none."""
    done = shared_submitter.cluster.kubectl("apply", "--dry-run=server", "-k", str(ROOT / "k8s" / "base"), check=False)
    assert "namespace/training created (server dry run)" in done.stdout
    assert all('namespaces "training" not found' in line for line in done.stderr.splitlines())


def test_a_submission_may_be_repeated_and_is_cancelled_whole(shared_submitter: Submitter) -> None:
    words = ["--nodes", "2", "--grace", "0", *SLEEP]
    shared_submitter.submit("twice", *words)
    shared_submitter.submit("twice", *words)
    assert len([name for name in shared_submitter.objects("twice") if not name.startswith("pod/")]) == 4
    other = shared_submitter.stackctl("submit", "--image", "other", "--name", "twice", *words)
    assert (other.returncode, "has another job of this name" in other.stderr) == (4, True), other.stderr
    shared_submitter.cancel("twice")


def test_who_follows_a_run_hears_that_it_was_removed(shared_submitter: Submitter) -> None:
    """And until then all that it prints as it ends."""
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(3)\n"
        "    sys.exit(print('the last words'))\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    shared_submitter.submit("removed", "--", "python", "-c", script)
    with shared_submitter.background("logs", "-f", "removed") as follower:
        for line in follower.stdout or ():
            if line.endswith("up\n"):
                break
        shared_submitter.cancel("removed")
        left, said = follower.communicate(timeout=60)
    assert (follower.returncode, "removed was removed meanwhile" in said) == (1, True), said
    assert "the last words" in left


def test_a_job_that_has_run_keeps_its_name(shared_submitter: Submitter) -> None:
    shared_submitter.submit("once", "--wait", "--", "true")
    again = shared_submitter.stackctl("submit", "--image", shared_submitter.image, "--name", "once", "--", "true")
    assert (again.returncode, "this job has run already" in again.stderr) == (4, True), again.stderr
    shared_submitter.cancel("once")


def test_code_is_shipped_to_every_pod(shared_submitter: Submitter, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os, helper; print(helper.WORD, os.environ['RANK'], os.getcwd())\n")
    (tmp_path / "helper.py").write_text("WORD = 'shipped'\n")
    shared_submitter.submit("mine", "--nodes", "2", "--code", str(tmp_path), "--wait", "--", "python", "mine.py")
    lines = shared_submitter.stackctl("logs", "mine").stdout.splitlines()
    # On a busy machine one node waits long enough for the other to say so.
    said = [line for line in lines if not line.startswith("stackrt.launch: waiting for")]
    assert sorted(said) == ["[0] shipped 0 /workspace", "[1] shipped 1 /workspace"]


def test_a_job_that_does_not_fit_is_refused_with_the_nodes_that_fall_short(
    submitter: Submitter, own_cluster: OwnCluster
) -> None:
    submitter.submit("holder", "--gpus", "3", "--device", "cpu", "--grace", "0", *SLEEP)
    submitter.wait_for("holder", "running", 60)
    waited = submitter.stackctl("wait", "holder", "--timeout", "0.2")
    assert (waited.returncode, "holder: goes on still, after 0.2 s" in waited.stderr) == (124, True), waited.stderr
    words = ["submit", "--image", submitter.image, "--name", "big", *ALL_GPUS]
    refused = submitter.stackctl(*words, *SLEEP)
    assert refused.returncode == 3
    assert "1 of 2 nodes fit now: each needs nvidia.com/gpu 8" in refused.stderr
    assert "nvidia.com/gpu 5 of 8 free" in refused.stderr
    assert "--skip-check room submits it all the same" in refused.stderr
    never = submitter.stackctl(*words, "--nodes", "3", *SLEEP)
    assert "could never hold more than 2" in never.stderr
    assert submitter.objects("big") == []
    submitter.cancel("holder")


def test_a_quota_that_is_too_small_is_told_before(submitter: Submitter) -> None:
    submitter.kubectl("create", "quota", "team", "--hard=requests.nvidia.com/gpu=8")
    until(lambda: "nvidia" in submitter.kubectl("get", "quota", "team", "--output=jsonpath={.status.hard}"), 30)
    refused = submitter.stackctl("submit", "--image", submitter.image, *ALL_GPUS, *SLEEP)
    assert refused.returncode == 3
    assert "the quota team has requests.nvidia.com/gpu 8 of 8 left, and the job needs 16" in refused.stderr


def test_a_claim_for_one_node_is_refused_for_two(shared_submitter: Submitter) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    meta = {"name": "once", "namespace": shared_submitter.namespace}
    shared_submitter.cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}
    )
    words = ["submit", "--image", shared_submitter.image, "--nodes", "2"]
    refused = shared_submitter.stackctl(*words, "--volume", "once", "--", "true")
    assert refused.returncode == 2
    assert "can be mounted by one node at a time (ReadWriteOnce), and the job has 2" in refused.stderr
    absent = shared_submitter.stackctl(*words, "--volume", "absent", "--", "true")
    assert (absent.returncode, "has no such claim" in absent.stderr) == (3, True), absent.stderr
