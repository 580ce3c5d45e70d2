"""The bench that faults are planted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.checks.bench import Alone, Bench


@pytest.fixture(scope="session")
def alone() -> Iterator[Alone]:
    made = Alone()
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, alone: Alone, request: pytest.FixtureRequest) -> Bench:
    def built(name: str) -> str:
        # Asked for only by cases that need a container: the others run without Docker.
        build: Callable[[str], str] = request.getfixturevalue("built")
        return build(name)

    return Bench(tmp_path, built, alone)
