from __future__ import annotations

from typing import cast

import pytest

from stackctl.runs import explain, watch
from stackctl.runs.explain import Explanation
from stackctl.runs.observe import NodeView, View
from stackctl.runs.progress import Progress
from stackctl.runs.states import State
from stackctl.runs.watch import Run


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was told; the cluster's answer is always the same, and a second goes by at each look."""
    clock = iter(range(1000))
    monkeypatch.setattr("stackctl.runs.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(watch, "facts", lambda _run: None)
    monkeypatch.setattr(explain, "explain", lambda _facts: Explanation("unschedulable", "no room", ["0/2 nodes"]))
    return []


def view(state: State, *nodes: str) -> View:
    rows = tuple(NodeView(number, f"a-{number}", doing, "") for number, doing in enumerate(nodes))
    return View(name="a", namespace="team", state=state, attempt=1, attempts=4, created="", nodes=rows)


def test_a_run_that_waits_for_long_is_told_why_once(told: list[str]) -> None:
    look = Progress(cast(Run, None), told.append).look
    for _ in range(50):
        look(view("pending", "running", "waiting for a node"))
    assert told == ["a: pending, attempt 1 of 4 (1 running, 1 waiting for a node)", "no room\n  | 0/2 nodes"]


def test_news_are_told_and_the_end_is_left_to_others(told: list[str]) -> None:
    look = Progress(cast(Run, None), told.append).look
    for now in (view("pending"), view("running", "running"), view("running", "succeeded"), view("succeeded")):
        look(now)
    assert told == ["a: pending, attempt 1 of 4", "a: running, attempt 1 of 4 (1 running)"]
