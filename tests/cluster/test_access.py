"""What a submitter needs, no less and no more; and what is said to one who asks for what is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.harness.cluster import Cluster
from tests.commands import ROOT, Stackctl

OnCluster = Callable[..., Any]

pytestmark = pytest.mark.needs("cluster")

ROLE, _, _DEBUGGER, _, ROOM, *_ = yaml.safe_load_all((ROOT / "k8s" / "base" / "rbac.yaml").read_text())


class Submitter:
    """Somebody with the role in k8s/base and nothing else."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace, self.path = cluster, namespace, folder / "kubeconfig"
        meta = {"namespace": namespace, "name": "submitter"}
        account = {"kind": "ServiceAccount", "name": "submitter", "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "submitter"}
        cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": role,
             "subjects": [account]},
        )  # fmt: skip
        self.allow(ROLE["rules"])
        token = cluster.kubectl("create", "token", "-n", namespace, "submitter").stdout.strip()
        self.use(token)

    def use(self, token: str, **place: Any) -> None:
        given = json.loads(self.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
        given["users"][0]["user"] = {"token": token}
        given["clusters"][0]["cluster"].update(place)
        self.path.write_text(json.dumps(given))

    def allow(self, rules: list[dict[str, Any]]) -> None:
        role = {**ROLE, "metadata": {"namespace": self.namespace, "name": "submitter"}, "rules": rules}
        self.cluster.apply(role)


@pytest.fixture
def submitter(cluster: Cluster, namespace: str, tmp_path: Path) -> Submitter:
    return Submitter(cluster, namespace, tmp_path)


@pytest.fixture
def as_submitter(submitter: Submitter, stackctl: Stackctl) -> OnCluster:
    def run(command: str, *words: str) -> Any:
        env = {"KUBECONFIG": str(submitter.path), "STACK_KUBE_TIMEOUT": "10"}
        return stackctl(command, "-n", submitter.namespace, *words, env=env)

    return run


def test_the_role_is_enough(as_submitter: OnCluster, pod_image: str) -> None:
    done = as_submitter("submit", "--image", pod_image, "--name", "a", "--follow", "--", "echo", "here")
    assert done.returncode == 0, done.stderr
    assert "not checked, since you may not ask the cluster: room (list nodes)" in done.stderr
    assert "[0] here" in done.stdout.splitlines()
    for words in (["list"], ["status", "a"], ["logs", "a"], ["explain", "a"], ["wait", "a"], ["cancel", "a"]):
        done = as_submitter(*words)
        assert done.returncode == 0, done.stderr


def test_the_role_is_enough_to_read_a_claim_and_to_test_a_node(
    as_submitter: OnCluster, submitter: Submitter, pod_image: str, shared_claim: Path
) -> None:
    words = ["--image", pod_image, "--name", "kept", "--volume", "shared", "--wait"]
    done = as_submitter("submit", *words, "--", "echo", "here")
    assert done.returncode == 0, done.stderr
    submitter.cluster.kubectl("delete", "pods", "--all", "--namespace", submitter.namespace)
    assert as_submitter("logs", "kept").stdout.splitlines() == ["[0] here"]
    done = as_submitter("test", pod_image, "--on", "kubernetes", "--gpus", "0", "--nodes", "1", "--only", "lock-match")
    assert done.returncode == 0, done.stderr
    unknown = as_submitter("test", pod_image, "--on", "kubernetes", "--all-nodes")
    assert (unknown.returncode, "may not list the cluster's nodes" in unknown.stderr) == (3, True), unknown.stderr


MISSED = {
    "jobs": (["submit", "--name", "a", "--", "true"], "you may not create jobs, get jobs, delete jobs"),
    "secrets": (["submit", "--name", "a", "--", "true"], "you may not create secrets"),
    "services": (["submit", "--name", "a", "--", "true"], "you may not create services"),
    "networkpolicies": (["submit", "--name", "a", "--", "true"], "you may not create networkpolicies"),
    "pods": (["submit", "--name", "a", "--", "true"], "you may not list pods"),
    "pods/log": (["submit", "--name", "a", "--", "true"], "you may not get pods/log"),
    "events": (["explain", "there"], "cannot list resource"),
    "persistentvolumeclaims": (
        ["submit", "--name", "a", "--volume", "x", "--", "true"],
        "claims (get persistentvol",
    ),
    "resourcequotas": (["submit", "--name", "a", "--", "true"], "quota (list resourcequotas)"),
    "limitranges": (["submit", "--name", "a", "--", "true"], "limits (list limitranges)"),
}


@pytest.fixture
def queues(cluster: Cluster) -> Iterator[None]:
    """What of Kueue a submission looks at: that it is there, and its queues."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "localqueues", "singular": "localqueue", "kind": "LocalQueue"}
    spec = {"group": "kueue.x-k8s.io", "scope": "Namespaced", "names": names, "versions": [version]}
    about = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    name = f"localqueues.{spec['group']}"
    if cluster.kubectl("get", "crd", name, check=False).returncode == 0:
        yield  # Kueue itself
        return
    cluster.apply({**about, "metadata": {"name": name}, "spec": spec})
    cluster.kubectl("wait", "crd", name, "--for=condition=Established", "--timeout=60s")
    yield
    cluster.kubectl("delete", "crd", name)


@pytest.mark.usefixtures("queues")
def test_a_queue_that_a_submitter_may_not_see_is_not_checked(
    as_submitter: OnCluster, submitter: Submitter, stackctl: Stackctl, pod_image: str
) -> None:
    words = ["submit", "--image", pod_image, "--name", "a", "--queue", "main"]
    hidden = [rule for rule in ROLE["rules"] if "localqueues" not in rule["resources"]]
    submitter.allow(hidden)
    done = as_submitter(*words, "--", "true")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not checked") == 1
    assert "queue (list localqueues)" in done.stderr
    assert as_submitter("cancel", "a").returncode == 0
    env = {"KUBECONFIG": str(submitter.cluster.kubeconfig)}
    seen = stackctl(*words, "--namespace", submitter.namespace, "--", "true", env=env)
    assert (seen.returncode, "there is no such queue; known: none" in seen.stderr) == (3, True), seen.stderr


def test_each_rule_of_the_role_is_needed(as_submitter: OnCluster, submitter: Submitter, pod_image: str) -> None:
    assert {name for rule in ROLE["rules"] for name in rule["resources"]} == set(MISSED)
    done = as_submitter("submit", "--image", pod_image, "--name", "there", "--no-preflight", "--", "true")
    assert done.returncode == 0, done.stderr
    for resource, (words, said) in MISSED.items():
        submitter.allow([rule for rule in ROLE["rules"] if resource not in rule["resources"]])
        image = ["--image", pod_image] if words[0] == "submit" else []
        done = as_submitter(words[0], *image, *words[1:])
        assert said in done.stderr, (resource, done.stderr)
        assert "Traceback" not in done.stderr
    submitter.allow(ROLE["rules"])
    assert as_submitter("cancel", "there").returncode == 0


def test_bad_credentials_and_places_are_one_clear_error(
    as_submitter: OnCluster, submitter: Submitter, stackctl: Stackctl, pod_image: str
) -> None:
    kubeconfig = {"KUBECONFIG": str(submitter.cluster.kubeconfig)}
    words = ["submit", "--image", pod_image, "--name", "a"]
    missing = stackctl(*words, "-n", "absent", "--", "true", env=kubeconfig)
    assert (missing.returncode, "the cluster has no such namespace" in missing.stderr) == (3, True), missing.stderr
    unknown = as_submitter("status", "absent")
    assert (unknown.returncode, "has no run named absent" in unknown.stderr) == (2, True), unknown.stderr
    submitter.use("expired")
    expired = as_submitter(*words, "--", "true")
    assert (expired.returncode, "does not accept your credentials" in expired.stderr) == (3, True), expired.stderr
    submitter.use("x", server="https://127.0.0.1:9")
    refused = as_submitter(*words, "--", "true")
    assert refused.returncode == 3
    assert "the cluster at https://127.0.0.1:9 does not answer: Connection refused" in refused.stderr
    for done in (missing, unknown, expired, refused):
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
