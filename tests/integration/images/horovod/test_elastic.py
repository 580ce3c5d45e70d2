"""A rank is lost: Horovod's own elastic runner goes on without it, and under our launcher the next attempt resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Stackctl

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
Build = Callable[[str], str]
TRAINERS = [("horovod-pytorch", "horovod_torch"), ("horovod-tensorflow", "horovod_tf")]
ROWS = [("horovod-pytorch", "elastic_torch.py"), ("horovod-tensorflow", "elastic_tf.py")]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that the image's user may write to."""
    folder = tmp_path / "out"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def elastic(image: str, out: Path, *command: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command on two ranks of one container under Horovod's elastic runner, after a line of shell."""
    argv = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost", "--env", "OMP_NUM_THREADS=1"]
    argv += ["--volume", f"{out}:/out", "--volume", f"{HERE}:/workspace:ro", image]
    argv += ["sh", "-c", f'{before}\nexec "$@"', "sh"]
    argv += ["horovodrun", "--gloo", "--network-interface", "lo", "-np", "2", "--min-np", "1", "--max-np", "2"]
    # Two names of this container: Horovod gives up a host whose rank has died.
    argv += ["--host-discovery-script", "printf 'localhost:1\\n127.0.0.1:1\\n'", *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize(("name", "script"), ROWS)
def test_horovods_own_elastic_run_goes_on_with_the_ranks_that_are_left(
    built: Build, out: Path, name: str, script: str
) -> None:
    done = elastic(built(name), out, "python", script)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [
        line.rpartition(":")[2].strip() for line in done.stdout.splitlines() if "from step" in line or ":ok" in line
    ]
    assert said == ["from step 0 on 2", "from step 0 on 2", "from step 4 on 1", "ok"], done.stdout + done.stderr


@pytest.mark.parametrize(("name", "script"), ROWS)
def test_a_run_that_lost_a_rank_resumes_from_its_state(
    built: Build, stackctl: Stackctl, tmp_path: Path, out: Path, name: str, script: str
) -> None:
    built(name)
    shutil.copy(HERE / script, tmp_path)
    tmp_path.chmod(0o755)  # the container is another user
    words = ("--image", name, "--nodes", "2", "--procs", "1", "--on", "compose", "--out", str(out))
    first = stackctl("run", *words, "--", "python", script, timeout=150)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "rank 1" in first.stdout + first.stderr
    second = stackctl("run", "--resume", "--out", str(out), "--on", "compose", timeout=150)
    assert second.returncode == 0, second.stdout + second.stderr
    for rank in (0, 1):
        said = (out / "logs" / "attempt-2" / f"rank-{rank}.log").read_text().splitlines()
        assert [line for line in said if line.startswith(("from", "ok"))] == ["from step 4 on 2", "ok"]


@pytest.mark.parametrize(
    ("name", "trainer"), [("horovod-pytorch", "horovod_torch"), ("horovod-tensorflow", "horovod_tf")]
)
def test_a_trainer_goes_on_with_the_ranks_that_are_left(built: Build, out: Path, name: str, trainer: str) -> None:
    words = ("--steps", "1000", "--checkpoint-every", "10", "--log-every", "1000")
    command = ("python", "-P", "-m", f"stackrt.train.{trainer}", *words)
    done = elastic(built(name), out, *command, before="python kill_rank.py 1 &")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / "result.json").read_text())
    assert (result["world_size"], result["steps"]) == (1, 1000), done.stdout + done.stderr
    assert result["resumed_from"].startswith("/out/checkpoints/step-")
    assert result["accuracy"] > 0.8
