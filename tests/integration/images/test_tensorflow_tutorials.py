"""The command that runs TensorFlow's own tutorials: what notebooks write runs as it is, and gets a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, environment

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

SETUP = """%%writefile mnist_setup.py

import tensorflow as tf
(pictures, labels), (tested, _) = tf.keras.datasets.mnist.load_data()
"""
GOOD = """%%writefile main.py
import os
import mnist_setup
print("accuracy", mnist_setup.pictures.shape, mnist_setup.labels.max(), mnist_setup.tf.keras.__name__)
"""
BAD = """%%writefile main.py
raise ValueError("as written for another version")
"""


def tutorials(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "tensorflow_tutorials.py"), *words]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=900, check=False)


def test_each_tutorial_gets_a_verdict(built: Callable[[str], str], tmp_path: Path) -> None:
    built("tensorflow")
    folder = tmp_path / "site" / "en" / "tutorials" / "distribute"
    folder.mkdir(parents=True)
    for name, cells in (("keras", [SETUP, "!python main.py", GOOD]), ("ctl", [BAD])):
        content = {"cells": [{"source": text.splitlines(keepends=True)} for text in cells]}
        (folder / f"multi_worker_with_{name}.ipynb").write_text(json.dumps(content))
    done = tutorials(str(tmp_path), "--data", "digits")
    assert done.returncode == 1, done.stderr
    good, bad = done.stdout.splitlines()
    assert good.split(":", 1)[0].split() == ["multi_worker_with_keras", "passed"]
    assert "accuracy (1536, 8, 8) 9 tf_keras" in good
    assert "failed with exit code 1" in bad
    assert "ValueError" in bad or "exited with code 1" in bad


def test_a_folder_without_the_tutorials_is_refused(tmp_path: Path) -> None:
    done = tutorials(str(tmp_path))
    assert done.returncode == 2
    assert "multi_worker_with_keras.ipynb: cannot be read" in done.stderr
