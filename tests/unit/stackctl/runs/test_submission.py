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


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".token-key").write_bytes(b"short")
    with pytest.raises(InvalidInput, match="is damaged"):
        token(tmp_path)
