"""What a person asks of the pods, on a cluster: as whom, where, how long, with what patched over."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from stackctl.jobs.merge import merge
from tests.cluster.harness.cluster import Cluster
from tests.cluster.submitting import Submitter
from tests.support.patches import PATCHES, POD

pytestmark = pytest.mark.needs("cluster")

JOB = """\
name = "most"
nodes = 2
grace = 0
node-selector = { "kubernetes.io/os" = "linux" }
toleration = ["dedicated=training:NoSchedule"]
service-account = "trainer"
image-pull-secret = ["registry"]
image-pull-policy = "IfNotPresent"
run-as = "2000:3000"
host-network = true
mount = ["host:/tmp:/scratch:ro", "configmap:settings/a.yaml:/settings/a.yaml", "secret:keys:/keys"]
deadline = "10m"
keep = "1h"
command = ["sh", "-c", "echo $(id -u):$(id -g) $(cat /settings/a.yaml /keys/token) $MASTER_ADDR"]
[label]
team = "vision"
[annotation]
"example.com/note" = "any text"
"""

PATCH = """\
metadata:
  labels: {team: vision}
spec:
  initContainers:
    - name: daemon
      image: IMAGE
      restartPolicy: Always
      command: [sh, -c, "echo here > /shared/word; trap exit TERM; sleep 600 & wait"]
      startupProbe: {exec: {command: [cat, /shared/word]}, periodSeconds: 1, failureThreshold: 300}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: node
      env: [{name: MINE, value: patched}]
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
    - {name: shared, emptyDir: {}}
    - {name: shm, emptyDir: {sizeLimit: 32Mi}}
"""


def lines(submitter: Submitter, name: str) -> list[str]:
    said = submitter.stackctl("logs", name).stdout.splitlines()
    return sorted(line for line in said if not line.startswith("stackrt.launch: waiting for"))


def test_a_job_file_with_most_options_is_refused_where_it_may_not_and_runs_where_it_may(submitter: Submitter) -> None:
    """Pods that are restricted have no folder and no network of their node; else all is as it was asked for."""
    (submitter.store / "job.toml").write_text(JOB)
    words = ["--image", submitter.image, "--file", "job.toml"]
    submitter.kubectl("create", "serviceaccount", "trainer")
    submitter.kubectl("create", "configmap", "settings", "--from-literal=a.yaml=setting")
    submitter.kubectl("create", "secret", "generic", "keys", "--from-literal=token=-key")
    absent = submitter.stackctl("submit", *words)
    assert "takes pods of the level restricted only, and these have: hostNetwork (--host-network)" in absent.stderr
    submitter.cluster.kubectl("label", "namespace", submitter.namespace, "pod-security.kubernetes.io/enforce-")
    absent = submitter.stackctl("submit", *words)
    assert (absent.returncode, "--image-pull-secret registry" in absent.stderr) == (3, True), absent.stderr
    access = ["--docker-username=a", "--docker-password=b", "--docker-server=registry.example"]
    submitter.kubectl("create", "secret", "docker-registry", "registry", *access)
    hosts = sorted(row["metadata"]["name"] for row in submitter.cluster.get("nodes")["items"])[:2]
    done = submitter.stackctl("submit", *words, "--wait", *(word for host in hosts for word in ("--node", host)))
    assert done.returncode == 0, done.stderr
    assert "no NetworkPolicy guards pods on their node's network" in done.stderr
    assert lines(submitter, "most") == [f"[{rank}] 2000:3000 setting-key most-0.most" for rank in (0, 1)]
    pods = submitter.pods("most")
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == hosts, "each has its node's ports to itself"
    for pod in pods:
        assert pod["spec"]["serviceAccountName"] == "trainer"
        assert pod["metadata"]["annotations"]["example.com/note"] == "any text"
    kinds = "jobs,pods,services,secrets,networkpolicies"
    assert len(submitter.kubectl("get", kinds, "--selector", "team=vision", "--output=name").split()) == 6


def test_the_cluster_takes_every_option(shared_submitter: Submitter) -> None:
    (shared_submitter.store / "job.toml").write_text(JOB)
    words = ["--file", "job.toml", "--image", shared_submitter.image, "--dry-run=server", "--scheduler", "another"]
    done = shared_submitter.stackctl("submit", *words, "--exclude-node", "absent", "--exclude-node", "another")
    assert done.returncode == 0, done.stderr


def test_a_patched_pod_runs(shared_submitter: Submitter) -> None:
    """With a daemon beside it that the pod does not wait for, a variable, and smaller shared memory."""
    (shared_submitter.store / "patch.yaml").write_text(PATCH.replace("IMAGE", shared_submitter.image))
    script = "cat /shared/word; echo $MINE; df --output=size /dev/shm | tail -1 | tr -d ' '"
    shared_submitter.submit("patched", "--patch", "patch.yaml", "--grace", "0", "--wait", "--", "sh", "-c", script)
    assert lines(shared_submitter, "patched") == ["[0] 32768", "[0] here", "[0] patched"]
    pod = shared_submitter.pods("patched")[0]
    assert pod["metadata"]["labels"]["team"] == "vision"
    assert shared_submitter.explain("patched").cause == "succeeded"


def test_a_run_that_takes_too_long_is_ended(shared_submitter: Submitter, tmp_path: Path) -> None:
    """And a list of all namespaces shows it to others, which a list of another does not."""
    words = ["--image", shared_submitter.image, "--deadline", "2", "--grace", "0", "--wait"]
    done = shared_submitter.stackctl("submit", "--name", "late", *words, "--", "sleep", "600")
    assert (done.returncode, "late was ended: it took longer than its --deadline" in done.stderr) == (1, True)
    other = dataclasses.replace(shared_submitter, store=tmp_path)
    for words, there in (["--namespace=default", "-A"], True), (["--namespace=default"], False):
        rows = json.loads(other.stackctl("list", "--json", "--limit=0", *words).stdout)
        found = [(row["name"], row["namespace"], row["state"]) for row in rows if row.get("namespace")]
        assert (("late", shared_submitter.namespace, "failed") in found) is there


@pytest.mark.parametrize("about", PATCHES)
def test_a_patch_makes_what_kubectl_makes_of_it(cluster: Cluster, about: str, tmp_path: Path) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", **POD}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    patch = json.dumps(PATCHES[about])
    words = ["patch", "--local", f"--filename={tmp_path / 'pod.json'}", "--type=strategic", f"--patch={patch}"]
    theirs = json.loads(cluster.kubectl(*words, "--output=json").stdout)
    theirs.pop("status", None)
    assert _whole(theirs) == _whole(merge(pod, PATCHES[about]))


def _whole(value: Any) -> Any:
    """Without nulls, which kubectl leaves out, and writes where a time has none."""
    if isinstance(value, dict):
        return {key: _whole(row) for key, row in value.items() if row is not None}
    return [_whole(row) for row in value] if isinstance(value, list) else value
