"""The role in k8s/base is enough to submit, watch and cancel, and none of its rules is too much."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.submitting import Submitter
from tests.commands import ROOT

pytestmark = pytest.mark.needs("cluster", "docker")

ROLE: dict[str, Any] = next(yaml.safe_load_all((ROOT / "k8s" / "base" / "rbac.yaml").read_text()))
RUN = ["--", "python", "-c", "print('here')"]
CLAIM = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}

BREAKS = {
    "jobs": (["status", "there"], "jobs"),
    "secrets": (["submit", *RUN], "create secrets"),
    "services": (["submit", *RUN], "create services"),
    "networkpolicies": (["submit", *RUN], "create networkpolicies"),
    "pods": (["status", "there"], "pods"),
    "pods/log": (["logs", "there"], "log"),
    "events": (["explain", "there"], "events"),
    "persistentvolumeclaims": (["submit", "--volume", "data", *RUN], "data"),
}
"""A resource -> the command that fails when the role says nothing of it, and what it then says."""


def submitter_with(rules: list[dict[str, Any]], admin: Submitter, folder: Path) -> Submitter:
    """Someone who may do in the namespace what the rules say, and nothing else."""
    account = {"kind": "ServiceAccount", "name": "someone", "namespace": admin.namespace}
    about = {"name": "submitter", "namespace": admin.namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "submitter"}
    admin.kubectl("create", "serviceaccount", "someone")
    admin.cluster.apply(
        {**ROLE, "metadata": about, "rules": rules},
        {"apiVersion": ROLE["apiVersion"], "kind": "RoleBinding", "metadata": about, "roleRef": reference,
         "subjects": [account]},
    )  # fmt: skip
    config = json.loads(admin.kubectl("config", "view", "--raw", "--minify", "--output=json"))
    config["users"][0]["user"] = {"token": admin.kubectl("create", "token", "someone").strip()}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return dataclasses.replace(admin, kubeconfig=path)


def test_the_role_is_enough(submitter: Submitter, tmp_path: Path) -> None:
    someone = submitter_with(ROLE["rules"], submitter, tmp_path)
    someone.submit("mine", "--wait", *RUN)
    for _ in range(2):  # a submission that is repeated looks at what is there
        someone.submit("again", "--", "sleep", "600")
    for command in (
        ["list"],
        ["status", "mine"],
        ["logs", "mine"],
        ["explain", "mine"],
        ["wait", "mine"],
        ["cancel", "mine"],
    ):
        done = someone.stackctl(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert "note:" not in done.stderr
    assert someone.stackctl("cancel", "again").returncode == 0


@pytest.mark.parametrize("resource", BREAKS)
def test_without_one_rule_something_breaks(submitter: Submitter, tmp_path: Path, resource: str) -> None:
    words, saying = BREAKS[resource]
    about = {"name": "data", "namespace": submitter.namespace}
    submitter.cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": about, "spec": CLAIM})
    if "there" in words:
        submitter.submit("there", *RUN)
    rules = [rule for rule in ROLE["rules"] if rule["resources"] != [resource]]
    assert len(rules) == len(ROLE["rules"]) - 1
    someone = submitter_with(rules, submitter, tmp_path)
    command, *rest = words
    done = someone.stackctl(command, *(["--image", submitter.image] if command == "submit" else []), *rest)
    assert done.returncode not in (0, 2), done.stderr
    assert saying in done.stderr


def test_without_the_rule_for_quotas_a_job_that_exceeds_one_is_not_refused(
    submitter: Submitter, tmp_path: Path
) -> None:
    submitter.kubectl("create", "quota", "none", "--hard=count/jobs.batch=9,pods=0")
    rules = [rule for rule in ROLE["rules"] if rule["resources"] != ["resourcequotas"]]
    submitter_with(rules, submitter, tmp_path).submit("full", *RUN)


def test_every_rule_has_its_test() -> None:
    assert {resource for rule in ROLE["rules"] for resource in rule["resources"]} == {*BREAKS, "resourcequotas"}
