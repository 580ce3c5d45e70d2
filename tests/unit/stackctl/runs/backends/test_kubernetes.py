from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.runs.backends.base import ClusterOptions, Request
from stackctl.runs.backends.kubernetes import Kubernetes, _merged
from stackctl.runs.states import State
from stackctl.runs.store import Record


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> tuple[str, list[str]]:
    """What a dry run prints, and what is told beside it."""
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    told: list[str] = []
    job = jobs.make(name="a", workload="gpt", env=given.pop("env", {}))
    asked = Request(job=job, folder=tmp_path / "runs" / "a", cluster=ClusterOptions(**given))
    return Kubernetes().plan(asked, told.append).text, told


def test_what_may_be_a_secret_and_will_be_seen_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    for name in ("train.py", ".env", "tls.pem"):
        (code / name).write_text("x")
    _, told = planned(tmp_path, monkeypatch, code=code, env={"HF_TOKEN": "x", "NCCL_DEBUG": "INFO"})
    assert told == [
        "note: --code ships what may be secrets: .env, tls.pem (--secret-env gives values without files)",
        "note: who may see the job can read --env HF_TOKEN; --secret-env HF_TOKEN keeps its value in a Secret",
    ]


def test_a_dry_run_is_whole_and_says_what_is_secret_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "of-mine")
    text, told = planned(tmp_path, monkeypatch, secret_env=("HF_TOKEN", "OTHER=there:key"))
    assert [part.splitlines()[1] for part in text.split("---\n") if "of-mine" in part] == ["kind: Secret"]
    assert told == ["note: the Secret below holds the value of HF_TOKEN, for whoever reads this"]
    assert planned(tmp_path, monkeypatch, secret_env=("HF_TOKEN", "OTHER=there:key")) == (text, told)


def test_to_ship_everything_of_nothing_is_a_slip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="says what of --code is shipped"):
        planned(tmp_path, monkeypatch, code_all=True)


def test_two_contexts_of_one_cluster_are_one_cluster() -> None:
    def row(name: str, context: str, server: str, **given: Any) -> Record:
        place: dict[str, Any] = {"namespace": "team", "context": context, "server": server}
        return Record(name=name, backend="kubernetes", attempt=1, started="then", **place, **given)

    one, other, here = "https://one:6443", "https://two:6443", "https://127.0.0.1:6443"
    mine = [row("a", "admin", one), row("a", "me", one), row("b", "admin", one), row("c", "admin", other),
            row("d", "kind", here, state="running", seen="once")]  # fmt: skip
    there: dict[str, dict[str, tuple[State, str]]] = {"team": {"a": ("succeeded", "now"), "c": ("queued", "now")}}
    found = _merged(mine, there, row("", "me", one))
    assert sorted((record.name, record.context, record.state) for record in found) == [
        ("a", "me", "succeeded"),
        ("b", "admin", "gone"),
        ("c", "admin", "running"),
        ("c", "me", "queued"),
        ("d", "kind", "running"),
    ]
    again = _merged(mine, {}, row("", "minikube", here))
    assert [record.seen for record in again if record.name == "d"] == ["once"], "one after another has this address"
