"""CI's workflow: its steps run here as they stand, as a stranger with a bare machine would run them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.commands import ROOT

WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
JOBS: dict[str, Any] = WORKFLOW["jobs"]
ABSENT = re.compile(r"docker.*|uvx?|python[0-9.]*|pip[0-9.]*")
"""Programs that a stranger does not have, and the Python that is put in their place."""
OURS = re.compile(r"(STACK|PYTEST|DOCKER|COMPOSE|XDG)_|PYTHON|VIRTUAL_ENV|MAKE|MFLAGS|GIT_(DIR|INDEX|WORK)|CI$")
"""Settings of this run of the tests. Those of the network stay: mirrors, proxies, certificates."""


def steps(job: str) -> list[str]:
    return [step["run"] for step in JOBS[job]["steps"] if "run" in step]


def targets(text: str) -> list[str]:
    return re.findall(r"\bmake ([a-z-]+)", text)


@pytest.fixture
def stranger(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has what is installed here but Docker and uv, and a home that is empty."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        # Not a virtual environment's programs, as the one that runs this.
        for program in folder.iterdir() if folder.is_dir() and not (folder.parent / "pyvenv.cfg").exists() else ():
            here = programs / program.name
            if not ABSENT.fullmatch(program.name) and not here.is_symlink() and os.access(program, os.X_OK):
                here.symlink_to(program)
    python = programs / "python3"
    python.write_text(f'#!/bin/sh\nexec "{Path(sys.base_prefix, "bin", Path(sys.executable).resolve().name)}" "$@"\n')
    python.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    cache = os.environ.get("PIP_CACHE_DIR") or Path.home() / ".cache" / "pip"
    home = tmp_path / "home"
    home.mkdir()
    return {**env, "PATH": str(programs), "HOME": str(home), "PIP_CACHE_DIR": str(cache)}


@pytest.mark.timeout(1800)
@pytest.mark.needs("index", "linux")
def test_a_stranger_without_docker_uv_and_torch_can_run_the_steps(clone: Path, stranger: dict[str, str]) -> None:
    assert [shutil.which(name, path=stranger["PATH"]) for name in ("docker", "uv", "python")] == [None] * 3
    said = {}
    for step in steps("bare"):
        assert "${{" not in step, "only a runner could fill that in"
        argv = ["bash", "-e", "-c", step]  # as a runner does it
        done = subprocess.run(argv, cwd=clone, env=stranger, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=1500, check=False)  # fmt: skip
        assert done.returncode == 0, f"{step}:\n{done.stdout[-8000:]}"
        said[step] = done.stdout
    assert not [*clone.glob(".venv/lib/python*/site-packages/torch")]
    counted = re.search(r"(\d+) passed", said["make test-fast"])
    assert counted, said["make test-fast"][-2000:]
    assert int(counted[1]) > 100
    left = {path.name for path in Path(stranger["HOME"]).iterdir()}
    assert left <= {".rustup"}, "outside the checkout nothing changes, but that pip asks rustc for its version"


def test_its_steps_are_make_targets_that_exist() -> None:
    known = set(targets(re.sub(r"(?m)^([a-z-]+):", r"make \1", (ROOT / "Makefile").read_text())))
    assert targets("\n".join(steps("bare"))) == ["lint", "test-fast"]
    assert targets("\n".join(steps("everything"))) == ["test"]
    for job in JOBS:
        assert all(re.fullmatch(r"make [a-z-]+", step) for step in steps(job)), "what CI runs, anybody can run"
        assert set(targets("\n".join(steps(job)))) <= known


def test_it_takes_nothing_but_two_actions_and_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in JOBS.values():
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 180
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert used == ["actions/checkout@v4", "actions/setup-python@v5"]


def test_it_requires_what_the_tests_know() -> None:
    from tests.machine import CAPABILITIES

    required = JOBS["everything"]["env"]["STACK_REQUIRE"].split(",")
    assert set(required) == {"docker", "index", "compiler", "linux"}
    assert set(required) <= CAPABILITIES.keys()


def test_its_pythons_are_those_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project["classifiers"]]
    versions = [match[1] for match in named if match]
    matrix = JOBS["bare"]["strategy"]["matrix"]
    assert matrix["python"] == versions
    assert {row["python"] for row in matrix["include"]} <= set(versions)
    assert project["requires-python"] == f">={versions[0]}"
    assert JOBS["everything"]["steps"][1]["with"]["python-version"] in versions


def test_a_commit_is_checked_as_ci_checks_it() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert hook["entry"] in steps("bare")
    assert hook["entry"] == "make lint"
    assert hook["language"] == "system"
    assert hook["pass_filenames"] is False


def test_a_report_of_a_bug_asks_for_commands_that_there_are() -> None:
    from stackctl.cli.main import COMMANDS, cli

    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    asked = " ".join(str(field["attributes"].get("description", "")) for field in form["body"])
    assert {"stackctl --version", "stackctl explain NAME --json"} <= set(re.findall(r"`([^`]+)`", asked))
    for name, rest in re.findall(r"`stackctl ([a-z]+)([^`]*)`", asked):
        assert name in COMMANDS
        command = cli.get_command(click.Context(cli), name)
        assert command
        assert set(re.findall(r"--[a-z-]+", rest)) <= {option for row in command.params for option in row.opts}
