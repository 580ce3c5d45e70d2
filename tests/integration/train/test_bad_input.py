"""What cannot work: one line, from rank 0, with the option or file in it; the right exit code; nothing half-made."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import background
from tests.support.trainers import Trainers, environment
from tests.timing import fastest

pytestmark = pytest.mark.needs("torch")

MODEL = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch-size", "2", "--steps", "8",
         "--eval-tokens", "500", "--sample-tokens", "4"]  # fmt: skip


def one_line(output: str) -> str:
    """The single line of an error; anything else fails."""
    lines = output.splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: "), output
    return lines[0]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--data", "/absent.txt"], "--data /absent.txt: No such file or directory"),
        (["--data", "/"], "--data /: Is a directory"),
        (["--data", "EMPTY"], "no text in it"),
        (["--data", "SHORT"], "training tokens, and --context 16 needs 65"),
        (["--val-fraction", "0.00001"], "validation tokens"),
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--heads", "3"], "--heads 3: must divide --width (16)"),
        (["--lr", "-1"], "--lr -1.0"),
        (["--vocab-size", "12"], "--vocab-size 12"),
        (["--resume", "/absent.pt"], "--resume /absent.pt: No such file or directory"),
        (["--resume", "EMPTY"], "refused: it is empty"),
        (["--resume", "SHORT"], "refused: its end is missing or damaged"),
        (["--out", "SHORT"], "not writable: File exists"),
        (["--out", "SHORT/deeper"], "not writable: Not a directory"),
    ],
)
def test_one_line_and_exit_78(trainers: Trainers, tmp_path: Path, world: int, argv: list[str], expected: str) -> None:
    (tmp_path / "EMPTY").touch()
    (tmp_path / "SHORT").write_text("short")
    places = [str(tmp_path / part) if part.startswith(("EMPTY", "SHORT")) else part for part in argv]
    out = tmp_path / "out"
    ranks = trainers.start_ranks(1, world, [*MODEL, "--out", str(out), *places], tmp_path / "logs")
    assert [rank.wait(60) for rank in ranks] == [78] * world
    assert expected in one_line(ranks[0].output)
    assert [rank.output for rank in ranks[1:]] == [""] * (world - 1)
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name not in (tmp_path.name, "logs")
    ]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"STACK_DEVICE": "tpu"}, "STACK_DEVICE=tpu: must be cuda, cpu or auto"),
        ({"RANK": "x"}, "RANK=x: must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK=0 is outside WORLD_SIZE=0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE=2 needs MASTER_ADDR and MASTER_PORT"),
    ],
)
def test_an_environment_that_cannot_work(
    trainers: Trainers, tmp_path: Path, env: dict[str, str], expected: str
) -> None:
    process = trainers.start([*MODEL, "--out", str(tmp_path / "out")], tmp_path / "log", **env)
    assert process.wait(60) == 78
    if env.get("RANK", "0") == "0":
        assert expected in one_line(process.output)


def test_a_gpu_that_is_not_there_is_an_error_not_a_fallback(trainers: Trainers, tmp_path: Path) -> None:
    hidden = {"STACK_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""}
    ranks = trainers.start_ranks(1, 2, [*MODEL, "--out", str(tmp_path / "out")], tmp_path / "logs", **hidden)
    assert [rank.wait(60) for rank in ranks] == [78, 78]
    assert "STACK_DEVICE=cuda, but torch sees no GPU" in one_line(ranks[0].output)


def test_a_file_that_only_one_rank_lacks_ends_all_and_names_it(trainers: Trainers, tmp_path: Path) -> None:
    """As on two nodes of which one lacks the file; another text on one of them is found, too."""
    for name, content in (("one", b"abc d\n" * 500), ("two", b"abc e\n" * 500)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "my.txt").write_bytes(content)
    (tmp_path / "none").mkdir()
    for second, expected in (("none", "rank 1: --data my.txt: No such file"), ("two", "rank 1 reads another text")):
        folders = f"{tmp_path}/one:{tmp_path}/{second}"
        argv = [*MODEL, "--data", "my.txt", "--out", str(tmp_path / "out")]
        ranks = trainers.start_ranks(2, 1, argv, tmp_path / f"{second}.logs", TEST_FOLDERS=folders)
        assert [rank.wait(60) for rank in ranks] == [78, 78]
        assert expected in one_line(ranks[0].output)


def test_a_diverging_run_says_so(trainers: Trainers, tmp_path: Path) -> None:
    process = trainers.start([*MODEL, "--lr", "1e30", "--clip", "0", "--out", str(tmp_path)], tmp_path / "log")
    assert process.wait(60) == 1
    assert re.search(r"^error: the training loss is nan at step \d+; try a lower --lr", process.output, re.MULTILINE)


def test_the_real_program_checks_options_before_its_slow_imports() -> None:
    def seconds() -> float:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "stackrt.train.gpt", "--steps", "0"], env=environment(),
                              capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert (done.returncode, done.stdout) == (78, "")
        assert "--steps 0" in one_line(done.stderr)
        return time.monotonic() - began

    assert fastest(seconds, 1) < 1


def test_the_real_program_is_quiet_and_debugs_on_demand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stackrt.train.gpt", *MODEL, "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    command += ["--data", "/absent"]
    done = subprocess.run(
        command, env=environment(STACK_DEBUG="1"), capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" in done.stderr


def test_output_to_a_full_disk_is_one_line(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "stackrt.train.gpt", *MODEL, "--out", str(tmp_path / "out")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            argv, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert (done.returncode, one_line(done.stderr)) == (1, "error: standard output: No space left on device")


def test_ctrl_c_while_it_imports_ends_it_without_a_traceback() -> None:
    """That takes seconds; one during the run is a vote of the ranks."""
    argv = [sys.executable, "-v", "-m", "stackrt.train.gpt"]  # tells on standard error what it has imported
    heard: dict[str, Any] = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with background(argv, env=environment(), **streams, **heard) as trainer:
        assert trainer.stderr
        assert any(line.startswith("import 'torch._C'") for line in trainer.stderr)
        trainer.send_signal(signal.SIGINT)
        rest = trainer.stderr.read()
        assert trainer.wait(30) == -signal.SIGINT
    assert "Traceback" not in rest


def test_a_disk_that_fills_keeps_the_last_good_checkpoint(trainers: Trainers, tmp_path: Path, small_disk: Path) -> None:
    """One checkpoint fits, the next does not; with room made, the run goes on to the same end as an unbroken one."""
    argv = [*MODEL, "--width", "64", "--checkpoint-every", "2", "--keep", "9"]
    trainers.run([*argv, "--out", str(tmp_path / "whole")], tmp_path / "whole.log")
    size = (tmp_path / "whole" / "checkpoints" / "step-000002.pt").stat().st_size
    out, ballast = small_disk / "out", small_disk / "ballast"
    ballast.write_bytes(b"x" * (2 * 1024 * 1024 - int(1.6 * size)))
    ranks = trainers.start_ranks(2, 2, [*argv, "--out", str(tmp_path / "whole4")], tmp_path / "whole4.logs")
    assert [rank.wait(60) for rank in ranks] == [0] * 4
    ranks = trainers.start_ranks(2, 2, [*argv, "--out", str(out)], tmp_path / "full.logs")
    assert [rank.wait(60) for rank in ranks] == [1] * 4
    told = [line for line in ranks[0].output.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, ranks[0].output
    assert re.search(r"step-000004\.pt: .*No space left on device; the last good one is step-000002\.pt", told[0])
    assert "Traceback" not in "".join(rank.output for rank in ranks)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step-000002.pt"]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    ranks = trainers.start_ranks(2, 2, [*argv, "--out", str(out)], tmp_path / "again.logs")
    assert [rank.wait(60) for rank in ranks] == [0] * 4
    ends = [(folder / "checkpoints" / "step-000008.pt").stat().st_size for folder in (out, tmp_path / "whole4")]
    assert min(ends) > 0
    assert sha(out) == sha(tmp_path / "whole4")


def test_a_disk_full_from_the_start_is_one_line(trainers: Trainers, tmp_path: Path, small_disk: Path) -> None:
    with contextlib.suppress(OSError):  # that is the point
        (small_disk / "ballast").write_bytes(b"x" * (4 << 20))
    process = trainers.start([*MODEL, "--out", str(small_disk / "out")], tmp_path / "log")
    assert process.wait(60) in (1, 78)
    assert "No space left on device" in process.output.splitlines()[-1]
    assert "Traceback" not in process.output


def sha(out: Path) -> str:
    found = re.search(r'"params_sha256": "(\w+)"', (out / "result.json").read_text())
    assert found
    return found[1]
