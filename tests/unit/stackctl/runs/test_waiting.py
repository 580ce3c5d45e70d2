"""Waiting for a run whose cluster does not answer for a while."""

from types import SimpleNamespace
from typing import Any

import pytest

from stackctl.engines.kube_errors import ApiError
from stackctl.runs import waiting

RUN: Any = None


def views(monkeypatch: pytest.MonkeyPatch, *found: Any) -> None:
    left = list(found)

    def view(_run: object) -> Any:
        row = left.pop(0)
        if isinstance(row, Exception):
            raise row
        return SimpleNamespace(state=row)

    monkeypatch.setattr("stackctl.runs.watch.view", view)
    monkeypatch.setattr("stackctl.runs.observe.line", lambda row: row.state)


def test_a_cluster_that_comes_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = ApiError("the cluster at x does not answer: refused")
    views(monkeypatch, "running", lost, ApiError("in trouble", status=503), "running", lost, "succeeded")
    said: list[str] = []
    seen: list[str] = []
    found = waiting.wait(RUN, lambda row: seen.append(row.state), lambda _: None, said.append)
    assert (found.state, seen) == ("succeeded", ["running", "running", "succeeded"])
    assert said == ["note: the cluster at x does not answer: refused; asking again for 10 minutes"] * 2


def test_one_that_stays_away_or_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    views(monkeypatch, ApiError("forbidden", status=403))
    with pytest.raises(ApiError, match="forbidden"):
        waiting.wait(RUN, lambda _: None, lambda _: None, lambda _: None)
    clock = iter(range(0, 10_000, 400))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    views(monkeypatch, *[ApiError("does not answer")] * 9)
    with pytest.raises(ApiError, match="does not answer"):
        waiting.wait(RUN, lambda _: None, lambda _: None, lambda _: None)
