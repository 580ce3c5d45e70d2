"""The fork server of the trainers, for all tests of a lane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.trainers import Trainers


@pytest.fixture(scope="session")
def _trainers() -> Iterator[Trainers]:
    server = Trainers()
    yield server
    server.close()


@pytest.fixture
def trainers(_trainers: Trainers) -> Iterator[Trainers]:
    """The fork server, with nothing running before and after."""
    yield _trainers
    _trainers.end_all()


@pytest.fixture(scope="session")
def teacher(_trainers: Trainers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished gpt that has learned something, for what comes after training."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    argv = ["--steps", "300", "--eval-tokens", "16384", "--eval-every", "300", "--sample-tokens", "8"]
    process = _trainers.start([*argv, "--out", str(out)], out.parent / "log")
    assert process.wait(600) == 0, process.output
    return out
