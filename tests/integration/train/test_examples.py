"""The programs of docs/examples: each runs as its first lines say, and all ways lead to the same loss."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.engines.process import find
from tests.commands import ROOT, Stackctl
from tests.support.trainers import environment

pytestmark = pytest.mark.needs("torch")

EXAMPLES = ROOT / "docs" / "examples"
LOSS = 0.39882
"""Of task.py's model after its steps, on one rank or many; as on the first machine that ran it."""

ALONE = ("mlp", "accumulate", "data_parallel", "spawn")
LAUNCHED = {"ddp": ["--nodes", "2"], "accelerate_loop": ["--procs", "2"], "fabric_loop": ["--procs", "2"]}
TEXTS = {"gpt2_loop": [], "trainer": ["--procs", "2"]}
HELPERS = {"task"}


def ran(argv: list[str], **more: str) -> str:
    done = subprocess.run(argv, env=environment(**more), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def launched(stackctl: Stackctl, name: str, options: list[str], **more: str) -> str:
    program = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = stackctl("run", *options, "--name", name.replace("_", "-"), "--", *program, env=more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(said: str) -> list[float]:
    return [float(number) for number in re.findall(r"\bloss'?:? '?([0-9.]+)", said)]


@pytest.fixture(scope="session")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lightning Fabric, in a folder of its own, as it is not among the trainers' packages."""
    folder = tmp_path_factory.mktemp("fabric")
    uv = find("uv")
    assert uv
    options = ["--no-deps", "--require-hashes", "--target", str(folder), "--python", sys.executable]
    subprocess.run([uv, "pip", "install", "--quiet", *options, "-r", str(EXAMPLES / "requirements.txt")], check=True)
    return folder


def test_every_program_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*ALONE, *LAUNCHED, *TEXTS, *HELPERS}


@pytest.mark.parametrize("name", ALONE)
def test_alone(name: str) -> None:
    assert losses(ran([sys.executable, str(EXAMPLES / f"{name}.py")])) == pytest.approx([LOSS], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in LAUNCHED if name != "fabric_loop"])
def test_under_our_launcher(name: str, stackctl: Stackctl) -> None:
    assert losses(launched(stackctl, name, LAUNCHED[name])) == pytest.approx([LOSS], abs=1e-5)


@pytest.mark.needs("index")
def test_fabric_under_our_launcher(stackctl: Stackctl, fabric: Path) -> None:
    said = launched(stackctl, "fabric_loop", LAUNCHED["fabric_loop"], PYTHONPATH=str(fabric))
    assert losses(said) == pytest.approx([LOSS], abs=1e-5)
    assert "Starting with 2 processes" in said


def test_under_torchrun() -> None:
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert losses(ran([*argv, str(EXAMPLES / "ddp.py")])) == pytest.approx([LOSS], abs=1e-5)


def test_gpt2_in_a_loop_learns() -> None:
    first, last = losses(ran([sys.executable, str(EXAMPLES / "gpt2_loop.py")]))
    assert last < 0.7 * first


def test_the_trainer_of_transformers_learns_on_two_ranks(stackctl: Stackctl) -> None:
    said = launched(stackctl, "trainer", TEXTS["trainer"])
    first, *_, last = losses(said)
    assert last < first
    assert {line[:3] for line in said.splitlines() if "'loss'" in line} == {"[0]"}, "one rank reports"
    # 2 ranks x 4 pieces a step: with every rank on its own it would have taken twice as many epochs.
    assert "'epoch': '5'" in said
