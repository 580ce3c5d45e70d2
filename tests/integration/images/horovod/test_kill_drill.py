"""kill -9 of random ranks at random moments: each next attempt goes on, and ends as if nothing had been.

`STACK_TEST_KILLS` sets how often; docs/horovod.md has the command.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS = int(os.environ.get("STACK_TEST_KILLS", "2"))
HERE = Path(__file__).parent
TRAINERS = [("horovod-pytorch", "horovod_torch"), ("horovod-tensorflow", "horovod_tf")]

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800 + KILLS * 120)]


@pytest.mark.parametrize(
    ("name", "trainer"), [("horovod-pytorch", "horovod_torch"), ("horovod-tensorflow", "horovod_tf")]
)
def test_a_killed_run_ends_bit_equal_to_a_whole_one(
    built: Callable[[str], str], tmp_path: Path, name: str, trainer: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o777)  # the container is another user
    seed = random.randrange(1000)
    argv = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--env", "OMP_NUM_THREADS=1"]
    argv += ["--env", "STACK_FRAMEWORK=horovod", "--env", "STACK_DEVICE=cpu"]
    argv += ["--volume", f"{out}:/out", "--volume", f"{HERE}:/workspace:ro", built(name)]
    argv += ["python", "kills.py", "many", f"stackrt.train.{trainer}", str(KILLS), str(seed)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1200 + KILLS * 120, check=False)
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
    print(done.stdout)
    assert done.stdout.startswith(f"{KILLS} kills in ")
