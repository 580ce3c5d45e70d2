"""What TensorFlow tells obscurely, the launcher's report explains: real failures of real programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

KERAS_3 = """
import numpy as np
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
model.fit(np.zeros((8, 4)), np.zeros((8, 1)), batch_size=4, verbose=0)
"""
PORT = """
import json, os, socket
import tensorflow as tf
config = json.loads(os.environ["TF_CONFIG"])
index = config["task"]["index"]
if index == 1:
    taken = socket.create_server(("", int(config["cluster"]["worker"][index].rpartition(":")[2])))
tf.distribute.MultiWorkerMirroredStrategy()
"""
LEAVES = """
import time
from types import SimpleNamespace
from stackrt.train.cnn import Mirrored
machine = Mirrored(SimpleNamespace(lr=0.1, seed=0, batch_size=2), (8, 8, 1), 10)
if machine.rank == 0:
    time.sleep(3)
began = time.monotonic()
machine.leave()
if machine.rank == 1 and time.monotonic() - began > 1:
    print("waited for rank 0")
"""
NO_AVX = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        pytest.param(KERAS_3, "set TF_USE_LEGACY_KERAS=1", id="Keras 3 on several workers"),
        pytest.param(PORT, "the port that TF_CONFIG gives this rank is taken", id="a port that is taken"),
        pytest.param(NO_AVX, "an instruction that this CPU lacks", id="an instruction that the CPU lacks"),
    ],
)
def test_the_cause_is_told(built: Callable[[str], str], tmp_path: Path, script: str, cause: str) -> None:
    done = two_ranks(built("tensorflow"), tmp_path, script)
    assert done.returncode != 0, done.stdout
    report = json.loads((tmp_path / "failure.json").read_text())
    assert cause in report["sentence"], report
    assert report["sentence"] in done.stderr


def test_no_rank_leaves_while_another_needs_it(built: Callable[[str], str], tmp_path: Path) -> None:
    """A rank fetches a sum from those that have it: one that had gone made the others fail at the end of a training."""
    done = two_ranks(built("tensorflow"), tmp_path, LEAVES)
    assert done.returncode == 0, done.stderr
    assert "[1] waited for rank 0" in done.stdout


def two_ranks(image: str, tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    settings = {"STACK_PROCS": "2", "STACK_FRAMEWORK": "tensorflow", "STACK_DEVICE": "cpu", "STACK_OUT": "/out"}
    argv = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--user", "0"]
    argv += [word for name, value in settings.items() for word in ("--env", f"{name}={value}")]
    argv += ["--volume", f"{tmp_path}:/out", image, "python", "-m", "stackrt.launch", "--", "python", "-c", script]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
