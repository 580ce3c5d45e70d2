"""Whatever a test leaves behind is killed by its process id; and what takes a minute goes on beside the other tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.launchers import Job


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    try:
        yield made
    finally:
        made.clean_up()


LATE_SECONDS = 60


@pytest.fixture(scope="session")
def late_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[list[int]]]:
    """The exit codes of two nodes, the second of which starts a minute after the first."""
    over = threading.Event()
    job = Job(tmp_path_factory.mktemp("late"))

    def both() -> list[int]:
        first = job.node(0, "true", STACK_TIMEOUT="90")
        over.wait(LATE_SECONDS)
        second = job.node(1, "true", STACK_TIMEOUT="90")
        return [node.wait() for node in (first, second)]

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(both)
        over.set()
    job.clean_up()


@pytest.fixture(scope="session", autouse=True)
def begun_early(request: pytest.FixtureRequest) -> None:
    """Have that minute pass beside the other tests."""
    if any("late_node" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("late_node")
