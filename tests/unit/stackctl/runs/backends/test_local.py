"""Runs as processes: what must be installed beside stackctl."""

from __future__ import annotations

import pytest

from stackctl.engines import local as engine
from stackctl.errors import MissingHere
from stackctl.jobs import job as jobs
from stackctl.runs.backends import local


@pytest.mark.parametrize(
    ("workload", "hint"),
    [
        ("gpt", "install them with `make train-env` in a checkout, or use the image with `--on compose`"),
        ("keras", "use the image with `--on compose`; `make train-env` does not bring tensorflow"),
    ],
)
def test_packages_that_are_missing_are_named_with_what_brings_them(
    workload: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "has_module", lambda _: False)
    with pytest.raises(MissingHere, match="not installed beside stackctl") as error:
        local._need_packages(jobs.make(name="a", workload=workload))
    assert error.value.hint == hint
