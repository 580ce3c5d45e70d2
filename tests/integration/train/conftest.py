"""The fork server of the trainers, for all tests of a lane."""

from __future__ import annotations

from collections.abc import Iterator

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
