from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, patch, profiles
from stackctl.jobs.placement import place
from stackctl.jobs.pod_options import PodOptions
from tests.support.patches import node

GOOD = """\
metadata:
  labels: {team: vision}
spec:
  automountServiceAccountToken: true
  terminationGracePeriodSeconds: 600
  initContainers:
    - {name: daemon, image: registry.example/daemon:1, restartPolicy: Always}
  containers:
    - name: node
      env:
        - {name: NCCL_DEBUG, value: INFO}
      volumeMounts:
        - {name: cache, mountPath: /cache}
      resources: {limits: {example.com/nic: 1}}
      securityContext: {capabilities: {add: [IPC_LOCK]}}
  volumes:
    - {name: cache, hostPath: {path: /cache}}
    - {name: shm, emptyDir: {sizeLimit: 2Gi}}
"""


def plan(folder: Path, text: str, code: str = "") -> list[dict[str, Any]]:
    (folder / "patch.yaml").write_text(text)
    made = jobs.make(name="a", workload="gpt", nodes=2, gpus=8)
    asked = PodOptions(patch=folder / "patch.yaml")
    placement = place(made, namespace="t", profile=profiles.load("generic"), image="i", code=code, pods=asked)
    return kubernetes.manifests(made, placement, token="t", packed="Y29kZQ==")


def test_a_patch_is_laid_over_the_pod(tmp_path: Path) -> None:
    first = plan(tmp_path, GOOD, code="c" * 64)[0]
    kubernetes_validate.validate(first, "1.37", strict=True)
    made = kubernetes.pod_of(first)
    assert first["spec"]["template"]["metadata"]["labels"]["team"] == "vision"
    assert [row["name"] for row in made["initContainers"]] == ["daemon", "unpack"]
    container = made["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8", "example.com/nic": "1"}
    assert container["securityContext"]["capabilities"] == {"add": ["IPC_LOCK"], "drop": ["ALL"]}
    assert made["terminationGracePeriodSeconds"] == 600
    assert {row["name"]: row for row in made["volumes"]}["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}


def test_what_is_printed_is_what_is_sent(tmp_path: Path) -> None:
    text = json.dumps({"metadata": {"annotations": {"on": "1e-3", "a: b": "c #d\n", "empty": "", "list": "[]"}}})
    made = plan(tmp_path, text)
    assert list(yaml.safe_load_all(kubernetes.to_yaml(made))) == made


def test_another_patch_is_another_job(tmp_path: Path) -> None:
    one, other = (kubernetes.digest(plan(tmp_path, f"spec: {{hostAliases: [{{ip: 1.1.1.{n}}}]}}")[0]) for n in (1, 2))
    assert one != other


def test_containers_that_must_end_before_the_pod_does() -> None:
    rows = {"spec": {"containers": [{"name": "node"}, {"name": "more"}, {"name": "less", "$patch": "delete"}]}}
    assert patch.extra_containers(rows, "node") == ["more"]
    assert patch.extra_containers({"metadata": {}}, "node") == []


BREAKING: list[tuple[dict[str, Any], str]] = [
    ({"spec": {"restartPolicy": "OnFailure"}}, "spec.restartPolicy: would break the run: the Job makes new pods"),
    ({"spec": {"subdomain": "x"}}, "spec.subdomain: would break the run: nodes find each other by it"),
    ({"spec": {"subdomain": None}}, "spec.subdomain"),
    ({"spec": {"hostname": "x"}}, "spec.hostname"),
    ({"spec": {"hostNetwork": True}}, "use --host-network"),
    ({"spec": {"activeDeadlineSeconds": 5}}, "use --deadline"),
    ({"spec": {"terminationGracePeriodSeconds": 5}}, "ranks have 70 seconds to write a checkpoint"),
    ({"spec": None}, "metadata and spec are maps"),
    ({"spec": {"containers": [{"name": "node", "$patch": "delete"}]}}, "spec.containers[node]: would break"),
    ({"spec": {"containers": None}}, "it is the launcher's container"),
    ({"metadata": {"labels": {"stackctl.io/run": "b"}}}, "metadata.labels.stackctl.io/run"),
    ({"metadata": {"labels": None}}, "metadata.labels.app.kubernetes.io/managed-by"),
    ({"spec": {"volumes": [{"name": "out", "$patch": "delete"}]}}, "spec.volumes[out]"),
    ({"spec": {"initContainers": [{"name": "unpack", "command": ["true"]}]}}, "it unpacks the shipped code"),
    ({"spec": {"initContainers": [{"$patch": "replace"}]}}, "it unpacks the shipped code"),
    (
        {"spec": {"containers": [{"name": "more", "image": "m", "ports": [{"containerPort": 29400}]}]}},
        "spec.containers[more].ports[29400]: would break the run: node 0's launcher listens there",
    ),
    (node(command=["sh"]), "spec.containers[node].command"),
    (node(args=["sh"]), "spec.containers[node].args"),
    (node(image="other"), "use --image"),
    (node(workingDir="/"), "spec.containers[node].workingDir"),
    (node(restartPolicy="Always"), "spec.containers[node].restartPolicy"),
    (node(terminationMessagePath="/x"), "results and failures are read from it"),
    (node(env=[{"name": "STACK_NODES", "value": "3"}]), "env[STACK_NODES]: would break the run: it is the launcher's"),
    (node(env=[{"name": "STACK_EXTRA", "value": "3"}]), "env[STACK_EXTRA]"),
    (node(env=[{"name": "STACK_TOKEN", "$patch": "delete"}]), "env[STACK_TOKEN]"),
    (node(env=[{"name": "RANK", "value": "3"}]), "env[RANK]: would break the run: each rank has its own"),
    (node(env=[{"$patch": "replace"}]), "env[STACK_"),
    (node(env=[{"name": "JOB_FAILURES", "value": "1"}]), "env[JOB_FAILURES]"),
    (node(volumeMounts=[{"mountPath": "/out", "name": "out", "readOnly": True}]), "volumeMounts[/out]"),
    (node(volumeMounts=[{"mountPath": "/dev/shm", "$patch": "delete"}]), "volumeMounts[/dev/shm]"),
    (node(resources={"limits": {"nvidia.com/gpu": "4"}}), "each rank has its GPU; use --gpus"),
    (node(resources=None), "use --gpus"),
]


@pytest.mark.parametrize(("rows", "said"), BREAKING, ids=[said for _, said in BREAKING])
def test_what_would_break_the_run_is_refused(rows: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        plan(tmp_path, json.dumps(rows), code="c" * 64)
    assert said in str(error.value)
    assert error.value.where.startswith("--patch")


def test_the_number_of_the_attempt_stays_behind_what_it_is_made_of(tmp_path: Path) -> None:
    made = kubernetes.pod_of(plan(tmp_path, json.dumps(node(env=[{"name": "A", "value": "1"}])))[0])
    names = [row["name"] for row in made["containers"][0]["env"]]
    assert max(map(names.index, patch.OURS)) < names.index("STACK_ATTEMPT")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("", "is no patch"),
        ("[]", "is no patch"),
        ("spec: {\n", "line 2: is neither YAML nor JSON"),
        ("containers: []", "containers is no part of a pod's top"),
        ("spec: []", "metadata and spec are maps"),
        ("kind: Deployment\nspec: {}", "patches a Deployment"),
        ("spec: {containers: {node: {}}}", "--patch: containers: is a list of maps"),
        ("spec: {volumes: [out]}", "spec.volumes: every element has its name"),
        ("metadata: {labels: [a]}", "--patch: labels: is a map"),
        ("spec: {containers: [{name: node, env: {A: 1}}]}", "--patch: env: is a list of maps"),
        ("spec: {containers: [{name: node, resources: 8}]}", "--patch: resources: is a map"),
        ("metadata: {annotations: {day: 2026-11-22}}", "2026-11-22 is no text, number or truth value"),
        ("metadata: {annotations: {1: a}}", "the key 1 is no text"),
    ],
)
def test_a_wrong_file_is_one_clear_error(text: str | None, said: str, tmp_path: Path) -> None:
    if text is None:
        with pytest.raises(InvalidInput, match="cannot be read: No such file"):
            patch.load(tmp_path / "absent.yaml")
        return
    with pytest.raises(InvalidInput) as error:
        plan(tmp_path, text)
    assert said in str(error.value)


def test_a_pod_is_a_patch_too(tmp_path: Path) -> None:
    made = plan(tmp_path, "apiVersion: v1\nkind: Pod\nspec: {priority: 5}")[0]
    assert kubernetes.pod_of(made)["priority"] == 5
