"""`make demo` from a clone, with Docker and without."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import PREFIX, ROOT, hear_signals
from tests.support.processes import background


def demo(clone: Path, **env: str) -> tuple[str, dict[str, object], float]:
    """Run the demo; returns what it printed, its result.json, and the seconds that the training took in all."""
    runs = clone.parent / "runs"
    given = {**os.environ, "STACK_RUNS": str(runs), "STACK_IMAGE_PREFIX": f"{PREFIX}demo-", **env}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV"):
        given.pop(name, None)
    start = time.monotonic()
    done = subprocess.run(["make", "demo"], cwd=clone, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=900, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    (folder,) = runs.iterdir()
    result = json.loads((folder / "result.json").read_text())
    return done.stdout, result, time.monotonic() - start


def check(said: str, result: dict[str, object], seconds: float) -> None:
    """What a newcomer must see."""
    first, last, bigram = (float(str(result[key])) for key in ("first_val_loss", "last_val_loss", "bigram_loss"))
    assert last < 0.6 * first
    assert last < bigram - 0.2
    assert re.search(r"step +50/", said), "it shows progress"
    assert f"validation   {first:.3f} -> {last:.3f}" in said
    assert f"bigram model {bigram:.3f}" in said
    assert "tokens/s" in said
    for name in ("loss.png", "sample.txt", "checkpoints/step-"):
        assert name in said
    assert seconds < 300, "under 5 minutes, downloads included here, where they are cached"


@pytest.mark.quiet
@pytest.mark.needs("torch")
def test_without_docker_two_nodes_train_as_processes(clone: Path) -> None:
    said, result, seconds = demo(clone, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "the Docker engine does not answer" in said
    assert "as processes on this machine" in said
    if os.environ.get("STACK_WHEELHOUSE"):
        assert "torch: from the wheelhouse" in said
    assert re.search(r"packages: \d+ from the package index, \d+ MB to download", said)
    check(said, result, seconds)


@pytest.mark.quiet
@pytest.mark.needs("docker")
def test_with_docker_two_nodes_train_in_containers(clone: Path, image: str) -> None:
    try:
        said, result, seconds = demo(clone)
        assert "in containers" in said
        assert re.search(r"pytorch:cpu: up to \d+ MB of packages to download, up to \d\.\d GB of disk", said)
        check(said, result, seconds)
    finally:
        argv = ["docker", "image", "rm", "--force", f"{PREFIX}demo-pytorch:cpu"]
        subprocess.run(argv, capture_output=True, check=False)


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_ctrl_c_leaves_nothing_behind(image: str, tmp_path: Path) -> None:
    env = {**os.environ, "STACK_RUNS": str(tmp_path / "runs"), "STACK_IMAGE_PREFIX": PREFIX}
    argv = [sys.executable, str(ROOT / "scripts" / "demo.py")]
    with background(argv, cwd=ROOT, env=env, start_new_session=True, preexec_fn=hear_signals) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if re.search(r"step +10/", line):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                break
        said += process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    (folder,) = (tmp_path / "runs").iterdir()
    assert list((folder / "checkpoints").glob("step-*.pt")), "an interrupted run can go on"
