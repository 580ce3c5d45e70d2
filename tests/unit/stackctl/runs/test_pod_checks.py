from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackctl.engines.kube_errors import ApiError
from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import place
from stackctl.jobs.pod_options import PodOptions
from stackctl.jobs.profiles import Toleration
from stackctl.runs import pod_checks
from stackctl.runs.feasibility import Metadata, Node
from stackctl.runs.submission import Submission
from tests.support.patches import node


def submission(nodes: int = 2, **asked: Any) -> Submission:
    made = jobs.make(name="a", workload="gpt", nodes=nodes, gpus=8)
    generic = profiles.load("generic")
    placement = place(made, namespace="team", profile=generic, image="i", code="c" * 64, pods=PodOptions(**asked))
    return Submission(made, placement, kubernetes.manifests(made, placement, token="t"))


def namespace(level: str = "", **annotations: str) -> dict[str, Any]:
    labels = {pod_checks.ENFORCE: level} if level else {}
    return {"metadata": {"name": "team", "labels": labels, "annotations": annotations}}


class Cluster:
    """What it has; a want of permission where the answer is a number."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects

    def of(self, key: str) -> Any:
        found = self.objects.get(key.partition(" ")[0])
        if isinstance(found, int):
            raise ApiError("forbidden", status=found)
        return found


def judge(made: Submission, **objects: Any) -> list[str]:
    return pod_checks.judge(made, Cluster(**objects))


def patched(folder: Path, rows: dict[str, Any], **asked: Any) -> Submission:
    (folder / "patch.json").write_text(json.dumps(rows))
    return submission(patch=folder / "patch.json", **asked)


def test_a_plain_run_is_admitted_everywhere() -> None:
    for level in ("", "privileged", "baseline", "restricted"):
        assert pod_checks.admitted(namespace(level), kubernetes.pod_of(submission().manifests[0]), PODS) == []


PODS = submission().placement.pods


@pytest.mark.parametrize("level", ["baseline", "restricted"])
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"host_network": True}, "hostNetwork (--host-network)"),
        ({"mounts": ("host:/data:/data",)}, "a folder of the node, /data (--mount host:…)"),
    ],
)
def test_what_is_the_nodes_own_is_refused_where_pods_are_confined(level: str, asked: dict[str, Any], said: str) -> None:
    made = submission(**asked)
    with pytest.raises(InvalidInput) as error:
        pod_checks.admitted(namespace(level), kubernetes.pod_of(made.manifests[0]), made.placement.pods)
    assert said in str(error.value)
    assert f"the namespace team takes pods of the level {level} only" in str(error.value)
    assert pod_checks.admitted(namespace(), kubernetes.pod_of(made.manifests[0]), made.placement.pods) == []


@pytest.mark.parametrize(
    ("rows", "level", "said"),
    [
        ({"spec": {"initContainers": [{"name": "d", "image": "d"}]}}, "restricted", "no allowPrivilegeEscalation"),
        ({"spec": {"hostPID": True}}, "baseline", "hostPID (--patch)"),
        (node(securityContext={"privileged": True}), "baseline", "privileged: true in node"),
        (node(securityContext={"capabilities": {"add": ["IPC_LOCK"]}}), "restricted", "capabilities in node"),
        (node(securityContext={"runAsNonRoot": False}), "restricted", "root in node"),
        ({"spec": {"securityContext": {"seccompProfile": None}}}, "restricted", "no seccompProfile in unpack"),
        ({"spec": {"volumes": [{"name": "n", "nfs": {"server": "s", "path": "/"}}]}}, "restricted", "the volume n"),
        (node(ports=[{"containerPort": 1, "hostPort": 1}]), "baseline", "a port of the node in node"),
    ],
)  # fmt: skip
def test_what_a_patch_asks_for_is_judged_too(rows: dict[str, Any], level: str, said: str, tmp_path: Path) -> None:
    made = patched(tmp_path, rows)
    with pytest.raises(InvalidInput) as error:
        pod_checks.admitted(namespace(level), kubernetes.pod_of(made.manifests[0]), made.placement.pods)
    assert said in str(error.value)


OPENSHIFT = {pod_checks.USERS: "1000680000/10000", pod_checks.GROUPS: "1000680000/10000"}


def test_openshift_says_as_whom_pods_run() -> None:
    def told(**asked: Any) -> list[str]:
        return judge(submission(**asked), Namespace=namespace(**OPENSHIFT), ServiceAccount={})

    with pytest.raises(InvalidInput) as error:
        told()
    assert "the users 1000680000 to 1000689999" in str(error.value)
    assert "would run as 1000\n  add --run-as 1000680000" in str(error.value)
    assert told(run_as="1000680000") == []
    assert "another constraint" in told(run_as="1000")[0], "who says so may know"
    assert "the groups 1000680000 to" in told(run_as="1000680000:5")[0]
    assert "another constraint" in told(service_account="free")[0]


@pytest.mark.parametrize(("text", "ids"), [("5/10", (5, 14)), ("5-10", (5, 10)), ("5/10,90/10", (5, 14)), ("", None)])
def test_ranges(text: str, ids: tuple[int, int] | None) -> None:
    assert pod_checks._range(text) == ids


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"service_account": "me"}, "--service-account me: the namespace team has no such service account"),
        ({"image_pull_secrets": ("reg",)}, "--image-pull-secret reg: the namespace team has no such Secret"),
        ({"mounts": ("configmap:c/k:/c",)}, "--mount configmap c: the namespace team has no such ConfigMap"),
        ({"mounts": ("secret:s:/c",)}, "--mount secret s: the namespace team has no such Secret"),
        ({"mounts": ("claim:d/x:/c",)}, "--mount claim d: the namespace team has no such claim"),
    ],
)
def test_what_pods_name_must_be_there(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(MissingHere) as error:
        judge(submission(**asked), Namespace=namespace())
    assert said in str(error.value)
    forbidden = dict.fromkeys(("ServiceAccount", "Secret", "ConfigMap", "PersistentVolumeClaim", "Namespace"), 403)
    assert "is not checked" in judge(submission(**asked), **forbidden)[0]
    with pytest.raises(ApiError):
        judge(submission(**asked), **dict.fromkeys(forbidden, 500))


def test_a_claim_for_one_node_is_refused_for_two() -> None:
    claim = {"spec": {"accessModes": ["ReadWriteOnce"]}}
    with pytest.raises(InvalidInput, match="can be mounted by one node at a time"):
        judge(submission(mounts=("claim:d:/d",)), PersistentVolumeClaim=claim)
    assert judge(submission(nodes=1, mounts=("claim:d:/d",)), PersistentVolumeClaim=claim) == []


def test_nodes_by_their_names() -> None:
    nodes = [Node(Metadata(name)) for name in ("node-1", "node-2", "node-3")]

    def names(**asked: Any) -> list[str]:
        return [row.metadata.name for row in pod_checks.takers(nodes, submission(**asked).placement.pods)]

    assert names() == ["node-1", "node-2", "node-3"]
    assert names(on_nodes=("node-2",)) == ["node-2"]
    assert names(exclude_nodes=("node-2",)) == ["node-1", "node-3"]
    with pytest.raises(MissingHere, match=r"--node nod-2: the cluster has no such node\n  did you mean 'node-2'"):
        names(on_nodes=("nod-2",))


def test_tolerations_of_a_patch_count(tmp_path: Path) -> None:
    rows = {"spec": {"tolerations": [{"operator": "Exists"}, {"key": "a", "tolerationSeconds": 5, "value": "b"}]}}
    pod = kubernetes.pod_of(patched(tmp_path, rows).manifests[0])
    assert pod_checks.tolerations(pod) == [Toleration("", "Exists"), Toleration("a", "Equal", "b")]
