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
        ("gpt", "install them with `make train-env`, or use the image with `--on compose`"),
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


def test_an_installed_stackctl_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "has_module", lambda _: False)
    monkeypatch.setattr("stackctl.assets.in_checkout", lambda: False)
    with pytest.raises(MissingHere) as error:
        local._need_packages(jobs.make(name="a", workload="compress"))
    assert error.value.hint.startswith("install them with stackctl's extra `train`, or use the image")
