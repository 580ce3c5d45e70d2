"""`stackctl images` beside the engine's own words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import Stackctl

pytestmark = pytest.mark.needs("docker")


def test_what_is_built_is_known_in_one_call_of_the_client(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    calls = tmp_path / "calls"
    shim = tmp_path / "bin" / "docker"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\necho "$@" >>"{calls}"\nexec "{docker}" "$@"\n')
    shim.chmod(0o755)
    done = stackctl("images", "--json", env={"PATH": os.pathsep.join([str(shim.parent), os.environ["PATH"]])})
    assert done.returncode == 0, done.stderr
    assert calls.read_text().splitlines() == ["context inspect"]
    rows = {row["tag"]: row for row in json.loads(done.stdout)}
    argv = ["docker", "image", "inspect", "--format", "{{.Size}} {{.Id}}", image]
    size, digest = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert (rows[image]["built"], rows[image]["size"], rows[image]["digest"]) == (True, int(size), digest)
    assert f"{int(size) / 1e9:.2f} GB, {digest[:19]}" in stackctl("images", "pytorch").stdout


def test_without_an_engine_the_matrix_is_still_shown(stackctl: Stackctl) -> None:
    done = stackctl("images", env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert done.returncode == 0
    assert "cannot tell what is built" in done.stderr
    assert all(line.endswith("  ?") for line in done.stdout.splitlines()[1:])
