"""compose.yaml as a user types it: `docker compose up trainer`, two nodes, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands import ROOT

pytestmark = [pytest.mark.needs("docker"), pytest.mark.usefixtures("leaves_nothing")]

SHORT = ["--steps", "4", "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--eval-tokens", "2000",
         "--sample-tokens", "20"]  # fmt: skip

Compose = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def compose(image: str, tmp_path: Path) -> Iterator[Compose]:
    """`docker compose` on the repository's own file, as a project of its own, with shorter training."""
    project = f"stacktest{os.getpid()}"
    command = ["python", "-m", "stackrt.launch", "--", "python", "-m", "stackrt.train.gpt", *SHORT]
    shorter = {"services": {name: {"command": command} for name in ("trainer", "node-0", "node-1")}}
    (tmp_path / "shorter.json").write_text(json.dumps(shorter))
    base = ["docker", "compose", "--project-name", project, "-f", "compose.yaml", "-f", str(tmp_path / "shorter.json")]
    env = {**os.environ, "STACK_IMAGE": image, "STACK_TENSORBOARD_PORT": "0"}
    if os.environ.get("STACK_WHEELHOUSE"):
        env["STACK_TORCH_INDEX"] = ""

    def run(*words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *words], cwd=ROOT, env={**env, **extra}, capture_output=True, text=True, timeout=600, check=False
        )

    yield run
    down = [*base, "--profile", "*", "down", "--volumes", "--timeout", "1"]
    subprocess.run(down, cwd=ROOT, env=env, capture_output=True, check=True)


def test_one_node_then_two_as_the_readme_has_it(compose: Compose, tmp_path: Path) -> None:
    """Each job has its place in the volume, and the last line of the file's head removes all."""
    done = compose("up", "--exit-code-from", "trainer", "trainer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "step" in done.stdout
    done = compose("up", "--exit-code-from", "node-0", "node-0", "node-1")
    assert done.returncode == 0, done.stdout + done.stderr
    copied = compose("cp", "trainer:/out", str(tmp_path / "out"))
    assert copied.returncode == 0, copied.stderr
    assert {path.stat().st_uid for path in (tmp_path / "out").rglob("*")} == {os.getuid()}
    results = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/result.json")}
    assert {name: found["world_size"] for name, found in results.items()} == {"trainer": 1, "two-node": 4}
    assert not list((tmp_path / "out").rglob("failure.json"))
    assert compose("--profile", "*", "down", "--volumes", "--timeout", "1").returncode == 0
    assert compose("ps", "--all", "--quiet").stdout == ""
    project = f"stacktest{os.getpid()}"
    for kind in ("volume", "network"):
        argv = ["docker", kind, "ls", "--quiet", "--filter", f"label=com.docker.compose.project={project}"]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == ""


def test_up_builds_the_image_if_it_is_absent(compose: Compose) -> None:
    name = f"stacktest{os.getpid()}-absent:cpu"
    try:
        done = compose("up", "--exit-code-from", "trainer", "trainer", STACK_IMAGE=name)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        compose("rm", "--force", "--stop", "trainer")
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True, check=False)


def test_the_suite_runs_for_any_uid_on_a_read_only_root(compose: Compose) -> None:
    done = compose("run", "--rm", "suite", STACK_UID="54321", STACK_GID="54321")
    assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: a warning, of a slow disk for example
    assert " 0 failed" in done.stdout
    assert "uid 54321, home /home/stack is writable" in done.stderr


def test_tensorboard_shows_the_curves(compose: Compose) -> None:
    assert compose("up", "--exit-code-from", "trainer", "trainer").returncode == 0
    assert compose("up", "--detach", "--wait", "tensorboard").returncode == 0
    address = compose("port", "tensorboard", "6006").stdout.strip()
    deadline = time.monotonic() + 60
    tags: dict[str, object] = {}
    while not tags and time.monotonic() < deadline:
        url = f"http://{address}/data/plugin/scalars/tags"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as page:
            tags = json.load(page)
        time.sleep(0.5)
    assert any("loss" in tag for run in tags.values() for tag in run), tags  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_written_says_what_to_do(compose: Compose, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir(mode=0o700)
    os.chown(out, 0, 0) if os.getuid() == 0 else out.chmod(0o500)
    done = compose("up", "--exit-code-from", "trainer", "trainer", STACK_OUT=str(out))
    assert done.returncode == 78, done.stdout + done.stderr
    assert "STACK_OUT" in done.stdout + done.stderr


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose/gpu.yaml"]])
def test_every_file_is_valid_and_hardened(files: list[str]) -> None:
    argv = ["docker", "compose", *(word for file in files for word in ("-f", file)), "--profile", "*", "config"]
    out = subprocess.run([*argv, "--format", "json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, service in json.loads(out)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"] not in ("", "0", "root", "0:0"), name
        assert "privileged" not in service, name
