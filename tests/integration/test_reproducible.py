"""Two builds of the same inputs give the same image."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.commands import PREFIX, Stackctl
from tests.integration import tree

pytestmark = pytest.mark.needs("docker")


@pytest.fixture(scope="module")
def again() -> Iterator[str]:
    """The name of a second image, removed in the end."""
    prefix = f"{PREFIX}again-"
    yield prefix
    subprocess.run(["docker", "image", "rm", "--force", f"{prefix}pytorch:cpu"], capture_output=True, check=True)


def test_every_step_repeated_gives_the_same_files(image: str, again: str, stackctl: Stackctl) -> None:
    words = ("build", "pytorch", "--variant", "cpu", "--no-cache")
    done = stackctl(*words, env={"STACK_IMAGE_PREFIX": again}, timeout=900)
    assert done.returncode == 0, done.stderr
    assert tree.differences(tree.digests(image), tree.digests(f"{again}pytorch:cpu")) == []


def test_an_image_is_as_old_as_its_commit(image: str) -> None:
    template = '{{.Created}} {{index .Config.Labels "org.opencontainers.image.created"}}'
    inspect = ["docker", "image", "inspect", "--format", template, image]
    created, commit = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split()
    assert datetime.fromisoformat(created) == datetime.fromisoformat(commit)
