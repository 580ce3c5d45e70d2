"""What integration tests share: seeing that nothing is left behind, and runs in the background."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OURS = re.compile(r"stacktest|t\d+-\d+|(gpt|python|loop)-\d{4}-\d{6}")
"""Names of what a test starts; other work may share the engine."""


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """See that a test left no container, network or volume of its own behind."""
    before = _docker_things()
    yield
    assert _docker_things() == before


def _docker_things() -> dict[str, set[str]]:
    listing = {
        "containers": ["ps", "--all", "--format", "{{.Names}}"],
        "networks": ["network", "ls", "--format", "{{.Name}}"],
        "volumes": ["volume", "ls", "--format", "{{.Name}}"],
    }
    found = {}
    for kind, words in listing.items():
        names = subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.split()
        found[kind] = {name for name in names if OURS.match(name)}
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start runs that are ended, with all they started, when the test ends."""
    from tests.integration.running import LOOP, Running

    running: list[Running] = []

    def begin(*words: str) -> Any:
        tmp_path.chmod(0o755)  # containers run as another user than root
        (tmp_path / "loop.py").write_text(LOOP)
        running.append(Running(tmp_path, *words))
        return running[-1]

    yield begin
    for run in running:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.send_signal(signal.SIGINT)
            try:
                run.process.wait(30)
            except subprocess.TimeoutExpired:
                run.process.kill()
        run.log.close()
