"""kill -9 of random ranks at random moments: each next attempt goes on, and ends as if nothing had been, to the bit.

`STACK_TEST_KILLS` sets how often; docs/testing.md has the command, and `keras` its own drill in `test_keras.py`.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS = int(os.environ.get("STACK_TEST_KILLS", "3"))

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800 + KILLS * 120)]


@pytest.mark.parametrize(
    ("trainer", "name", "framework"),
    [
        ("cnn", "tensorflow", "tensorflow"),
        ("horovod_torch", "horovod-pytorch", "horovod"),
        ("horovod_tf", "horovod-tensorflow", "horovod"),
    ],
)
def test_killed_ranks_end_bit_equal_to_a_whole_run(
    built: Callable[[str], str], trainer: str, name: str, framework: str
) -> None:
    seed = random.randrange(1000)
    argv = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--env", "OMP_NUM_THREADS=1"]
    argv += ["--env", f"STACK_FRAMEWORK={framework}", "--env", "STACK_DEVICE=cpu"]
    argv += ["--volume", f"{Path(__file__).parent}:/workspace:ro", built(name)]
    argv += ["python", "-P", "drill.py", f"stackrt.train.{trainer}", str(KILLS), str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900 + KILLS * 120, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    print(f"{trainer}: {done.stdout}")
    assert done.stdout.startswith(f"{KILLS} kills in ")
