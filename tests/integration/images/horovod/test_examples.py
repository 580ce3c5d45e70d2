"""The command that runs Horovod's own examples: as they are, on two nodes, with digits in MNIST's place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, environment

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

# What upstream's examples do with MNIST, in a second.
GOOD = """
import horovod.tensorflow as hvd, tensorflow as tf
hvd.init()
(pictures, labels), _ = tf.keras.datasets.mnist.load_data(path="mnist-%d.npz" % hvd.rank())
assert pictures.shape == (len(labels), 8, 8) and 128 < pictures.max() < 256 and set(labels) == set(range(10))
assert hvd.size() == 2 and tf.keras.layers.Layer.__module__.startswith("tf_keras")
open(f"written-{hvd.rank()}", "w")
"""


def examples(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "horovod_examples.py"), *words]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=900, check=False)


def test_every_example_gets_a_verdict(built: Callable[[str], str], tmp_path: Path) -> None:
    built("horovod-tensorflow")
    folder = tmp_path / "examples" / "tensorflow2"
    folder.mkdir(parents=True)
    (folder / "tensorflow2_mnist.py").write_text(GOOD)
    (folder / "tensorflow2_synthetic_benchmark.py").write_text("import sys\nsys.exit('--no-cuda' in sys.argv)\n")
    done = examples(str(tmp_path), "--file", "tensorflow2_mnist.py", "--file", "tensorflow2_synthetic_benchmark.py")
    verdicts = dict(line.split(None, 1) for line in done.stdout.splitlines() if line.startswith("tensorflow2_"))
    assert verdicts["tensorflow2_mnist.py"].startswith("passed in "), done.stdout + done.stderr
    assert verdicts["tensorflow2_synthetic_benchmark.py"].startswith("failed with exit code 1 after")
    assert done.returncode == 1


def test_a_folder_without_examples_is_refused(tmp_path: Path) -> None:
    done = examples(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(f"{tmp_path}: there is no folder examples/tensorflow2")
