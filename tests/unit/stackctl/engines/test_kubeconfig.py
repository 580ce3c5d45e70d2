from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.engines import kubeconfig
from stackctl.engines.kubeconfig import Context
from stackctl.errors import InvalidInput

FIRST = """
current-context: lab
contexts:
- {name: lab, context: {cluster: lab, namespace: research}}
"""
SECOND = """
current-context: cloud
contexts:
- {name: cloud, context: {cluster: cloud}}
- {name: lab, context: {cluster: other, namespace: ignored}}
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "a").write_text(FIRST)
    (tmp_path / "b").write_text(SECOND)
    return {"KUBECONFIG": f"{tmp_path / 'absent'}:{tmp_path / 'a'}:{tmp_path / 'b'}"}


def test_the_first_file_that_says_something_wins_as_for_kubectl(env: dict[str, str]) -> None:
    assert kubeconfig.current(env) == Context("lab", "research")
    assert kubeconfig.current(env, "cloud") == Context("cloud", "default")


def test_an_unknown_context_names_the_nearest(env: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'cloud'"):
        kubeconfig.current(env, "clout")


def test_names_that_yaml_takes_for_something_else_and_empty_parts_are_fine(tmp_path: Path) -> None:
    names = "[{name: 007, context: {namespace: 8}}, {name: 2026-02-31}, {name: 1e3}]"
    (tmp_path / "config").write_text(f"current-context: 007\ncontexts: {names}\nusers: null\n")
    env = {"KUBECONFIG": str(tmp_path / "config")}
    assert kubeconfig.current(env) == Context("007", "8")
    assert kubeconfig.current(env, "2026-02-31") == Context("2026-02-31", "default")
    assert kubeconfig.current(env, "1e3").name == "1e3"


def test_a_current_context_that_is_not_there_is_an_error(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a").write_text(FIRST.replace("current-context: lab", "current-context: labs"))
    with pytest.raises(InvalidInput, match="no such context") as error:
        kubeconfig.current(env)
    assert error.value.where == "current-context: labs"
    assert error.value.hint == (
        "did you mean 'lab'? `kubectl config use-context NAME` sets another, and --context names one"
    )
    assert kubeconfig.current(env, "cloud").name == "cloud"


def test_a_file_that_has_changed_is_read_again(env: dict[str, str], tmp_path: Path) -> None:
    assert kubeconfig.current(env).namespace == "research"
    (tmp_path / "a").write_text(FIRST.replace("research", "other"))
    assert kubeconfig.current(env).namespace == "other"


def test_an_empty_file_among_several_says_nothing(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    (tmp_path / "remark").write_text("# nothing yet\n")
    several = {"KUBECONFIG": f"{tmp_path / 'none'}:{tmp_path / 'remark'}:{env['KUBECONFIG']}"}
    assert kubeconfig.current(several) == kubeconfig.current(env)
    assert kubeconfig.filled(several) == [tmp_path / "a", tmp_path / "b"]
    assert kubeconfig.lacking(several) == ""


def test_why_no_cluster_is_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path / "account")
    (tmp_path / "none").touch()
    empty, absent = {"KUBECONFIG": str(tmp_path / "none")}, {"KUBECONFIG": str(tmp_path / "absent")}
    assert kubeconfig.lacking({}) == "no ~/.kube/config"
    assert kubeconfig.lacking(empty) == f"{tmp_path / 'none'} is empty"
    assert kubeconfig.lacking(absent) == f"KUBECONFIG names no file: {tmp_path / 'absent'}"
    (tmp_path / "account").mkdir()
    assert [kubeconfig.lacking(env) for env in ({}, empty, absent)] == ["", "", ""], "a pod's own account is used"


def test_each_context_knows_its_server(tmp_path: Path) -> None:
    clusters = "clusters: [{name: 7, cluster: {server: 'https://a:6443/'}}, {name: none}]\n"
    contexts = "contexts: [{name: a, context: {cluster: 7}}, {name: b, context: {cluster: none}}, {name: c}]\n"
    (tmp_path / "config").write_text(clusters + contexts)
    found = kubeconfig.contexts({"KUBECONFIG": str(tmp_path / "config")})
    assert {name: context.server for name, context in found.items()} == {"a": "https://a:6443", "b": "", "c": ""}


def test_no_kubeconfig_is_the_default_namespace(tmp_path: Path) -> None:
    assert kubeconfig.current({"KUBECONFIG": str(tmp_path / "absent")}) == Context("", "default")


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "just text", "- a", "contexts: 3", "contexts: [null]", "contexts: {lab: {}}", "users: [3]",
        "contexts: [{name: lab, context: research}]", "clusters: [{name: lab, cluster: {server: [5]}}]",
    ],
)  # fmt: skip
def test_a_file_that_is_no_kubeconfig_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="is no kubeconfig") as error:
        kubeconfig.current({"KUBECONFIG": str(path)})
    assert error.value.where == str(path)
