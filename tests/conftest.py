"""What tests share: what this machine can do and must not be missing, the command line, and images of this tree."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import lanes
from tests.commands import PREFIX, ROOT, STACKCTL, Stackctl, environment
from tests.machine import CAPABILITIES, REQUIRED, lacks_docker, lacks_torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", choices=lanes.load(), help="only the tests of one lane of tests/lanes.toml")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Spare the collection of files that are another lane's."""
    lane = config.getoption("--lane")
    if lane is None or not collection_path.name.startswith("test_"):
        return None
    if lane == lanes.QUIET:
        return True if "mark.quiet" not in collection_path.read_text() else None
    path = collection_path.relative_to(ROOT).as_posix()
    return True if lanes.lane_of(path) != lane else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the quiet tests to their lane."""
    if lane := config.getoption("--lane"):
        split: dict[bool, list[pytest.Item]] = {True: [], False: []}
        for item in items:
            split[(item.get_closest_marker("quiet") is not None) == (lane == lanes.QUIET)].append(item)
        items[:] = split[True]
        config.hook.pytest_deselected(items=split[False])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quiet: its bound of time needs a machine without other work: the last lane")
    config.addinivalue_line("markers", f"needs(*names): what a test needs of the machine: {', '.join(CAPABILITIES)}")
    unknown = REQUIRED - CAPABILITIES.keys()
    if unknown:
        raise pytest.UsageError(
            f"STACK_REQUIRE: unknown {', '.join(sorted(unknown))}; known: {', '.join(CAPABILITIES)}"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            reason = CAPABILITIES[name]()
            if reason and name in REQUIRED:
                pytest.fail(f"STACK_REQUIRE asks for {name}, but {reason}")
            if reason:
                pytest.skip(reason)


class ModuleWithoutTorch(pytest.Module):
    """A test module that cannot be imported here, because it imports what is not installed."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        if "torch" in REQUIRED:
            pytest.fail(f"STACK_REQUIRE asks for torch, but {lacks_torch()}")
        pytest.skip(lacks_torch(), allow_module_level=True)


@functools.cache
def imports_torch(path: Path) -> bool:
    """Whether a module imports what is installed with torch, by itself or through modules of the payload."""
    text = path.read_text()
    if re.search(r"^(import|from) (torch|numpy|starlette|uvicorn|prometheus_client)\b", text, re.MULTILINE):
        return True
    found = re.findall(r"^from (stackrt[\w.]*) import (\([^)]*\)|.*)$", text, re.MULTILINE)
    names = [f"{package}.{name}" for package, listed in found for name in re.findall(r"\w+", listed)]
    modules = {
        ROOT / "images" / f"{name.replace('.', '/')}.py" for name in [*names, *(package for package, _ in found)]
    }
    return any(imports_torch(module) for module in modules if module.exists())


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip, by name and with the reason, modules that import torch or numpy where they are not installed."""
    if lacks_torch() and imports_torch(module_path):
        return ModuleWithoutTorch.from_parent(parent, path=module_path)
    return None


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
            errors="surrogateescape",
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def lacks() -> Callable[[str], str]:
    """Why this machine cannot do something, of CAPABILITIES; empty if it can."""
    return lambda name: CAPABILITIES[name]()


@contextmanager
def _other_lanes_wait(name: str) -> Iterator[None]:
    """Within the block no other lane builds this image."""
    folder = os.environ.get("STACK_TEST_LANES")
    if folder is None:
        yield
        return
    with (Path(folder) / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def built() -> Iterator[Callable[[str], str]]:
    """Build an image from this tree, once a run, and return its tag: `pytorch` on a CPU, `pytorch:cuda`.

    The tags go when the tests end, or with lanes when the last of them has; their layers stay in the cache.
    """
    reason = lacks_docker()
    if reason and "docker" in REQUIRED:
        pytest.fail(f"STACK_REQUIRE asks for docker, but {reason}")
    if reason:
        pytest.skip(reason)
    tags: dict[str, str] = {}
    one_at_a_time = threading.Lock()

    def build(name: str) -> str:
        with one_at_a_time, _other_lanes_wait(name):
            if name not in tags:
                image, _, variant = name.partition(":")
                argv = [STACKCTL, "build", image, "--variant", variant or "cpu"]
                done = subprocess.run(
                    argv, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False
                )
                assert done.returncode == 0, done.stderr[-4000:]
                tags[name] = f"{PREFIX}{image}:{variant or 'cpu'}"
            return tags[name]

    yield build
    if tags and "STACK_TEST_LANES" not in os.environ:
        subprocess.run(["docker", "image", "rm", "--force", *tags.values()], capture_output=True, check=True)


@pytest.fixture(scope="session")
def image(built: Callable[[str], str]) -> str:
    """The pytorch CPU image."""
    return built("pytorch")
