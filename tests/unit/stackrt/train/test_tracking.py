"""Trackers: what they are sent, and that one that fails or hangs costs training nothing and is told of once."""

import importlib.util
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stackrt.train import tracking
from stackrt.train.errors import BadInputError
from stackrt.train.tracking import Row, Tracker


class Kept:
    """A tracker that keeps what it gets; `before` a call, it does as a test has it."""

    def __init__(self, before: Callable[[str], None]) -> None:
        self.before = before
        self.opened: list[tuple[str, str]] = []
        self.rows: list[Row] = []
        self.files: list[Path] | None = None

    def open(self, name: str, folder: Path, options: Mapping[str, Any], before: str) -> str:
        self.before("open")
        self.opened.append((name, before))
        return before or "identity"

    def send(self, rows: Sequence[Row]) -> None:
        self.before("send")
        self.rows += rows

    def close(self, files: Sequence[Path]) -> None:
        self.before("close")
        self.files = list(files)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Kept]:
    """Make the only tracker there is."""

    def make(before: Callable[[str], None] = lambda call: None) -> Kept:
        kept = Kept(before)
        monkeypatch.setitem(tracking.CLIENTS, "kept", lambda: kept)
        return kept

    monkeypatch.setattr(tracking, "PAUSE", 0.01)
    monkeypatch.setenv("STACK_RUN", "gpt-7")
    return make


def refuse(call: str) -> None:
    raise ConnectionError("connection\nrefused")


def test_rows_arrive_in_order_and_the_end_with_files(client: Callable[..., Kept], tmp_path: Path) -> None:
    kept, said = client(), list[str]()
    tracker = Tracker("kept", tmp_path, {"steps": 5}, said.append)
    for step in range(100):
        tracker.add({"step": step, "loss": 1.0})
    tracker.finish([tmp_path / "loss.png"])
    assert [row["step"] for row in kept.rows] == list(range(100))
    assert (kept.opened, kept.files, said) == ([("gpt-7", "")], [tmp_path / "loss.png"], [])


def test_a_resumed_run_goes_on_under_its_name_and_another_does_not(client: Callable[..., Kept], tmp_path: Path) -> None:
    for resumed, before in ((True, ""), (True, "identity"), (False, "")):
        kept = client()
        Tracker("kept", tmp_path, {}, print, resumed=resumed).finish()
        assert kept.opened == [("gpt-7", before)]


@pytest.mark.parametrize("call", ["open", "send", "close"])
def test_one_that_refuses_is_told_of_once(client: Callable[..., Kept], tmp_path: Path, call: str) -> None:
    client(lambda found: refuse(call) if found == call else None)
    said = list[str]()
    tracker = Tracker("kept", tmp_path, {}, said.append)
    for step in range(50):
        tracker.add({"step": step})
        time.sleep(0.001)
    tracker.finish()
    (line,) = said
    assert line.startswith("track   kept does not answer: ConnectionError: connection refused; training goes on")


def test_one_that_comes_back_gets_all(client: Callable[..., Kept], tmp_path: Path) -> None:
    down = threading.Event()
    down.set()
    kept, said = client(lambda call: refuse(call) if down.is_set() else None), list[str]()
    tracker = Tracker("kept", tmp_path, {}, said.append)
    tracker.add({"step": 0})
    deadline = time.monotonic() + 10
    while not said:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    tracker.add({"step": 1})
    down.clear()
    tracker.finish()
    assert [row["step"] for row in kept.rows] == [0, 1]
    assert (kept.files, len(said)) == ([], 1)


def test_one_that_hangs_holds_nothing_up(
    client: Callable[..., Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    hold = threading.Event()

    def wait(call: str) -> None:
        hold.wait(60)

    client(wait)
    said = list[str]()
    began = time.monotonic()
    tracker = Tracker("kept", tmp_path, {}, said.append)
    for step in range(tracking.MOST_ROWS // 100):
        tracker.add({"step": step})
    tracker.finish()
    assert time.monotonic() - began < 5
    assert [line.partition(";")[0] for line in said] == ["track   kept has not taken all in time"]
    hold.set()


def test_without_a_tracker_there_is_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    tracker = Tracker("", tmp_path, {}, print)
    tracker.add({"step": 1})
    tracker.finish()
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_a_package_or_an_address_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInputError, match="--track no_such_package: the package no_such_package is not installed"):
        tracking.check("no_such_package")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(BadInputError, match="--track mlflow: MLFLOW_TRACKING_URI is not set"):
        tracking.check("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    tracking.check("mlflow")
    tracking.check("wandb")
