"""What integration tests share: the command line as a user runs it, and one image for the whole run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REQUIRED, lacks_docker

ROOT = Path(__file__).resolve().parent.parent.parent
STACKCTL = str(Path(sys.executable).parent / "stackctl")
PREFIX = "stacktest-"
"""Image names of a test run: a user's own images keep theirs."""

OURS = re.compile(r"stacktest|t\d+-\d+|(gpt|python|loop)-\d{4}-\d{6}")
"""Names of what a test starts; other work may share the engine."""

Stackctl = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command under test."""
    return {**os.environ, "STACK_IMAGE_PREFIX": PREFIX, **extra}


def hear_signals() -> None:
    """For a child to run before exec: a test run in the background ignores SIGINT, and its children would too."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def stackctl(tmp_path: Path) -> Stackctl:
    """Run stackctl with a run store of its own; returns the finished process."""

    def run(
        *words: str, env: Mapping[str, str] | None = None, timeout: float = 300, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = environment(STACK_RUNS=str(tmp_path / "runs"), **(env or {}))
        return subprocess.run(
            [STACKCTL, *words],
            env=given,
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def built() -> Iterator[Callable[[str], str]]:
    """Build a CPU image from this tree, once a run, and return its name.

    The names go when the tests end; their layers stay in the cache.
    """
    reason = lacks_docker()
    if reason and "docker" in REQUIRED:
        pytest.fail(f"STACK_REQUIRE asks for docker, but {reason}")
    if reason:
        pytest.skip(reason)
    tags: dict[str, str] = {}

    def build(name: str) -> str:
        if name not in tags:
            argv = [STACKCTL, "build", name, "--variant", "cpu"]
            done = subprocess.run(
                argv, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
            )
            assert done.returncode == 0, done.stderr[-4000:]
            tags[name] = f"{PREFIX}{name}:cpu"
        return tags[name]

    yield build
    if tags:
        subprocess.run(["docker", "image", "rm", "--force", *tags.values()], capture_output=True, check=True)


@pytest.fixture(scope="session")
def image(built: Callable[[str], str]) -> str:
    """The pytorch CPU image."""
    return built("pytorch")


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
