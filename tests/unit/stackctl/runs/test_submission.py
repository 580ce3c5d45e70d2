from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import profiles
from stackctl.jobs.placement import place
from stackctl.runs import submission


def token(home: Path, name: str = "a") -> str:
    job = jobs.make(name=name, workload="gpt")
    placement = place(job, namespace="team", profile=profiles.load("generic"), image="i")
    ready = submission.prepare(job, placement, None, {"STACK_RUNS": str(home)})
    return str(ready.manifests[1]["stringData"]["token"])


def test_the_token_is_ones_own_and_the_same_for_the_same_job(tmp_path: Path) -> None:
    home = tmp_path / "runs"
    first = token(home)
    assert len(first) == 64
    assert token(home) == first
    assert token(home, "b") != first
    assert token(tmp_path / "another person") != first
    assert [path.name for path in home.iterdir()] == [".token-key"]
    assert stat.S_IMODE((home / ".token-key").stat().st_mode) == 0o600


def secret(env: dict[str, str], *names: str) -> dict[str, str]:
    job = jobs.make(name="a", workload="gpt")
    placement = place(job, namespace="team", profile=profiles.load("generic"), image="i", secret_env=names)
    first, made, *_ = submission.prepare(job, placement, None, env).manifests
    assert "value-of" not in str(first), "no value, nor what it could be guessed by"
    return {key: value for key, value in made["stringData"].items() if key != "token"}


def test_values_of_ones_own_go_into_the_secret(tmp_path: Path) -> None:
    env = {
        "STACK_RUNS": str(tmp_path),
        "KEY": "value-of-key",
        "EMPTY": "",
        "BAD": "value-of-\udce9",
        "BIG": "x" * 65_537,
    }
    assert secret(env, "KEY", "EMPTY", "OTHER=there:key") == {"env.KEY": "value-of-key", "env.EMPTY": ""}
    for name, said in (
        ("ABSENT", "is not set in your environment"),
        ("BAD", "not UTF-8"),
        ("BIG", "65,536 characters"),
    ):
        with pytest.raises(InvalidInput, match=said) as error:
            secret(env, name)
        assert "value-of" not in str(error.value)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".token-key").write_bytes(b"short")
    with pytest.raises(InvalidInput, match="is damaged"):
        token(tmp_path)
