"""Trainers of pictures in their images: a real set, stopping and going on, tensorflow-datasets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, STACKCTL, Stackctl, environment
from tests.support.images import in_image

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

SCRIPTS = Path(__file__).parent
Build = Callable[[str], str]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the full Fashion-MNIST; in STACK_DATA, if that is set, it is fetched once."""
    folder = Path(os.environ.get("STACK_DATA") or tmp_path_factory.mktemp("sets") / "data")
    argv = [STACKCTL, "data", "fetch", "fashion-mnist"]
    env = environment(STACK_DATA=str(folder))
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "fashion-mnist")]
    return folder


def rows(out: Path) -> list[dict[str, float]]:
    try:
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):
        return []


@pytest.mark.needs("index")  # the network: Debian's package has the set
def test_cnn_learns_fashion_mnist_and_goes_on_after_a_stop(
    built: Build, stackctl: Stackctl, sets: Path, tmp_path: Path
) -> None:
    built("tensorflow")
    out, env = tmp_path / "out", environment(STACK_DATA=str(sets))
    words = ["cnn", "--procs", "2", "--on", "compose", "--out", str(out), "--", "--data", "fashion-mnist"]
    words += ["--steps", "400", "--log-every", "10", "--lr", "0.05", "--schedule", "cosine"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([STACKCTL, "run", *words], env=env, cwd=ROOT, stdout=file, stderr=file)
        while len(rows(out)) < 3 and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 130, log.read_text()
    (path,) = (out / "checkpoints").iterdir()
    assert f"stopped by SIGTERM after step {int(path.stem.removeprefix('step-'))}" in log.read_text()
    done = stackctl("run", "--resume", "--out", str(out), env={"STACK_DATA": str(sets)}, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["resumed_from"] == f"/out/checkpoints/{path.name}"
    assert (result["data"], result["world_size"]) == ("fashion-mnist", 2)
    assert result["accuracy"] >= 0.84
    assert abs(result["validation_accuracy"] - result["accuracy"]) < 0.03
    steps = [row["step"] for row in rows(out)]
    assert steps == [1, *range(10, 401, 10)]


@pytest.mark.needs("index")
def test_keras_learns_fashion_mnist(built: Build, stackctl: Stackctl, sets: Path, tmp_path: Path) -> None:
    built("tensorflow")
    words = ("run", "keras", "--on", "compose", "--out", str(tmp_path / "out"), "--", "--data", "fashion-mnist")
    done = stackctl(*words, "--steps", "400", env={"STACK_DATA": str(sets)}, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["data"], result["steps"]) == ("fashion-mnist", 400)
    assert result["accuracy"] >= 0.84
    assert abs(result["validation_accuracy"] - result["accuracy"]) < 0.03


@pytest.mark.needs("index")
@pytest.mark.parametrize(
    ("workload", "name"), [("horovod-torch", "horovod-pytorch"), ("horovod-tf", "horovod-tensorflow")]
)
def test_horovod_learns_fashion_mnist(
    built: Build, stackctl: Stackctl, sets: Path, tmp_path: Path, workload: str, name: str
) -> None:
    built(name)
    words = ("run", workload, "--procs", "2", "--on", "compose", "--out", str(tmp_path / "out"), "--")
    learning = ("--data", "fashion-mnist", "--steps", "400", "--lr", "0.05", "--schedule", "cosine")
    done = stackctl(*words, *learning, env={"STACK_DATA": str(sets)}, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["data"], result["world_size"]) == ("fashion-mnist", 2)
    assert result["accuracy"] >= 0.84
    assert abs(result["validation_accuracy"] - result["accuracy"]) < 0.03


def test_a_set_of_tensorflow_datasets(built: Build, tmp_path: Path) -> None:
    image = built("tensorflow")
    in_image(image, tmp_path, "python", "/workspace/tiny_set.py", scripts=SCRIPTS)
    trainer = ("python", "-P", "-m", "stackrt.train.cnn", "--cache", "/out", "--steps", "20", "--batch-size", "20")
    in_image(image, tmp_path, *trainer, "--data", "tfds:tiny", "--out", "/out/run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["accuracy"] == 1.0
    refusing = f"{' '.join(trainer)} --data tfds:mnist || {' '.join(trainer)} --data tfds:minst || true"
    said = in_image(image, tmp_path, "sh", "-c", f"({refusing}) 2>&1")
    assert "tfds:mnist: is not in /out/tfds; prepare it once, where there is a network: tfds build mnist" in said
    assert "tfds:minst: Dataset minst not found" in said
    assert "Traceback" not in said
