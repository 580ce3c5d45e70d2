"""Each framework's image trains on two nodes of two ranks, as one plain process would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import Stackctl
from tests.support.plain_process import STEPS, apart

# An image that is not in the cache compiles Horovod first.
pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

Build = Callable[[str], str]


def read_list(path: Path) -> list[dict[str, object]]:
    """A file that is a list of events."""
    found: list[dict[str, object]] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        ("cnn", "tensorflow"),
        # Passes of a step add up to the step.
        ("horovod-torch --accumulate 2 --timeline", "horovod-pytorch"),
        ("horovod-tf --accumulate 2 --timeline", "horovod-tensorflow"),
    ],
)
def test_four_ranks_on_two_nodes_train_as_one_plain_process(
    built: Build, stackctl: Stackctl, tmp_path: Path, workload: str, name: str
) -> None:
    image, out = built(name), tmp_path / "out"
    workload, *more = workload.split()
    words = (workload, "--nodes", "2", "--procs", "2", "--on", "compose", "--out", str(out))
    done = stackctl("run", *words, "--", *STEPS, *more, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / "result.json").read_text())
    assert (result["workload"], result["world_size"], result["steps"]) == (workload, 4, 30)
    assert result["last_train_loss"] < result["first_train_loss"] / 2
    assert result["accuracy"] > 0.5
    assert result["samples_per_second"] > 0
    assert f"accuracy     {result['accuracy']:.3f}" in done.stdout
    if "--timeline" in more:
        assert {"ALLREDUCE", "NEGOTIATE_ALLREDUCE"} <= {event.get("name") for event in read_list(out / "timeline.json")}
    assert apart(image, out, workload) <= 1e-5


@pytest.mark.parametrize(("module", "name"), [("cnn", "tensorflow"), ("horovod_torch", "horovod-pytorch")])
def test_ranks_that_do_not_know_of_each_other_are_no_training(
    built: Build, stackctl: Stackctl, tmp_path: Path, module: str, name: str
) -> None:
    """An image by its full name is nobody's: ranks get torch's variables, and each would train a model of its own."""
    tmp_path.chmod(0o755)
    words = ["--procs", "2", "--on", "compose", "--image", built(name), "--out", str(tmp_path / "out")]
    done = stackctl("run", *words, "--", "python", "-m", f"stackrt.train.{module}", "--steps", "2", timeout=300)
    assert done.returncode == 1
    assert "--framework" in done.stderr.splitlines()[0]
    assert "error: 2 ranks were started, and" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "result.json").exists()
