"""`stackctl run` on machines as people have them: other environments, full disks, odd names, signals from above."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, STACKCTL, Stackctl, environment
from tests.integration.running import Running, background, ranks_of, read, wait_for, wait_until_gone

SAVES = """\
import os, signal, sys, time
def save(number, frame):
    time.sleep(0.5)
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(0)
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), save)
for number in range(600):
    print("line", number, flush=True)
    time.sleep(0.1)
"""


@pytest.fixture
def saves(tmp_path: Path, start: Callable[..., Running]) -> Running:
    """Two nodes of a rank each, which save once they are asked to end."""
    (tmp_path / "saves.py").write_text(SAVES)
    run = start("--nodes", "2", "--", "python", "saves.py")
    run.wait_for_ranks(2)
    return run


STOPS = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]


@pytest.mark.needs("linux")
@pytest.mark.parametrize("name", STOPS)
def test_every_process_of_a_run_signalled_at_once(name: str, saves: Running) -> None:
    """systemd's default, a shutdown and scancel do it; the launchers hear of it twice."""
    everyone = [saves.process.pid, *(pid for pid in ranks_of(saves.out) if pid != saves.process.pid)]
    for pid in everyone:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, name))
    assert saves.process.wait(20) == 130, saves.said()
    assert [saves.rank_log(rank).count("saved after") for rank in (0, 1)] >= [1, 1], saves.said()
    assert read(saves.out / "run.json")["state"] == "stopped"
    wait_until_gone(saves.out)


@pytest.mark.needs("linux")
@pytest.mark.parametrize("name", ["SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_to_stackctl_alone_reach_every_rank(name: str, saves: Running) -> None:
    saves.process.send_signal(getattr(signal, name))
    notice = name.startswith("SIGUSR")
    assert saves.process.wait(20) == (0 if notice else 130), saves.said()
    heard = name if notice else "SIGTERM"
    assert [saves.rank_log(rank).count(f"saved after {heard}") for rank in (0, 1)] == [1, 1], saves.said()
    assert read(saves.out / "run.json")["state"] == ("succeeded" if notice else "stopped")


@pytest.mark.needs("linux")
def test_a_run_whose_stackctl_was_killed_does_not_run_for_ever(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "saves.py").write_text(SAVES)
    argv = [STACKCTL, "run", "--name", "a", "--", "python", "saves.py"]
    folder = tmp_path / "runs" / "a"

    def state() -> str:
        (row,) = json.loads(stackctl("list", "--json").stdout)
        return str(row["state"])

    with background(argv, env=environment(STACK_RUNS=str(tmp_path / "runs")), cwd=tmp_path) as process:
        log = folder / "logs" / "attempt-1" / "rank-0.log"
        wait_for(lambda: log.exists() and "line 3" in log.read_text(), 30)
        assert state() == "running"
        process.kill()
        refused = stackctl("run", "--resume", "--name", "a")
        assert (refused.returncode, "still going on" in refused.stderr) == (4, True), "its launchers hold it"
        wait_until_gone(folder, 15)
    assert state() == "unknown"
    told = stackctl("status", "a").stdout
    assert "go on from its last checkpoint with `stackctl run --resume --name a`" in told


@pytest.mark.needs("linux")
def test_a_full_disk_fails_no_job(stackctl: Stackctl, small_disk: Path) -> None:
    script = "for _ in range(80): print('x' * 50000)\nprint('trained to the end')"
    done = stackctl("run", "--out", str(small_disk / "out"), "--", "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "[0] trained to the end" in done.stdout
    assert "no log file any more: No space left on device" in done.stderr
    assert "run.json: could not be written: No space left on device" in done.stderr
    refused = stackctl("run", "--out", str(small_disk / "other"), "--", "true")
    assert refused.returncode == 3
    assert "No space left on device" in refused.stderr
    assert not (small_disk / "other" / "job.json").exists()


def test_a_folder_that_is_removed_meanwhile_hides_no_failure(stackctl: Stackctl, tmp_path: Path) -> None:
    script = "import os, shutil, sys; shutil.rmtree(os.environ['STACK_OUT']); print('last words'); sys.exit({})"
    out = str(tmp_path / "out")
    assert stackctl("run", "--out", out, "--", "python", "-c", script.format(0)).returncode == 0
    failed = stackctl("run", "--out", out, "--", "python", "-c", script.format(3))
    assert failed.returncode == 1
    assert "exited with code 3" in failed.stderr
    assert "last words" in failed.stdout


def test_bytes_that_are_not_utf8(stackctl: Stackctl, tmp_path: Path) -> None:
    word = os.fsdecode(b"donn\xe9es.txt")
    script = "import os, sys; print(ascii(sys.argv[1]), ascii(os.environ['WHERE']))"
    given = ("run", "--out", str(tmp_path / word), "--", "python", "-c", script, word)
    done = stackctl(*given, env={"WHERE": word})
    assert done.returncode == 0, done.stderr
    assert f"[0] {word!a} {word!a}" in done.stdout
    again = stackctl("run", "--resume", "--out", str(tmp_path / word), env={"WHERE": word})
    assert f"[0] {word!a}" in again.stdout, again.stderr
    for backend in (["run", "--on", "compose", "--dry-run"], ["submit", "--dry-run"]):
        refused = stackctl(*backend, "--", "python", word)
        assert (refused.returncode, "is not UTF-8" in refused.stderr) == (2, True), refused.stderr


def test_a_resumed_run_starts_where_it_was_started(stackctl: Stackctl, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"print('project {name}')")
    assert stackctl("run", "--name", "r", "--", "python", "mine.py", cwd=tmp_path / "a").returncode == 0
    again = stackctl("run", "--resume", "--name", "r", cwd=tmp_path / "b")
    assert "[0] project a" in again.stdout
    (tmp_path / "a").rename(tmp_path / "c")
    gone = stackctl("run", "--resume", "--name", "r", cwd=tmp_path / "b")
    assert gone.returncode == 2
    assert f"was started in has gone: {tmp_path / 'a'}" in gone.stderr


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 1)])
def test_a_reader_that_goes_away_changes_no_exit_code(code: int, expected: int, tmp_path: Path) -> None:
    script = f"import sys, time\nfor i in range(20): print('loss', i, flush=True); time.sleep(.02)\nsys.exit({code})"
    argv = [STACKCTL, "run", "--out", str(tmp_path / "out"), "--", "python", "-c", script]
    with background(argv, env=environment(), stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert "loss" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == expected
        assert process.stderr is not None
        assert "BrokenPipe" not in process.stderr.read()


def test_an_active_environments_python_is_what_ranks_get(stackctl: Stackctl, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "mine")], check=True)
    own, show = str(tmp_path / "mine" / "bin"), ("run", "--", "python", "-c", "import sys; print(sys.executable)")
    path = f"{own}{os.pathsep}{os.environ['PATH']}"
    active = stackctl(*show, env={"VIRTUAL_ENV": str(tmp_path / "mine"), "PATH": path})
    assert f"[0] {own}/python" in active.stdout, active.stderr
    assert "note" not in active.stderr
    beside = stackctl(*show, env={"VIRTUAL_ENV": "", "CONDA_PREFIX": "", "PATH": path})
    assert f"[0] {Path(sys.executable).parent}/python" in beside.stdout
    assert f"note: python is {Path(sys.executable).parent}/python, not {own}/python" in beside.stderr


def test_a_users_own_search_path_comes_first(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "fork" / "yaml").mkdir(parents=True)
    (tmp_path / "fork" / "yaml" / "__init__.py").write_text("name = 'my fork'")
    env = {"PYTHONPATH": str(tmp_path / "fork")}
    done = stackctl("run", "--", "python", "-c", "import yaml; print(yaml.name)", env=env)
    assert "[0] my fork" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "TF_CONFIG", "HOROVOD_RANK", "STACK_RUN"])
def test_variables_that_are_the_launchers_are_refused(name: str, stackctl: Stackctl, tmp_path: Path) -> None:
    refused = stackctl("run", "--env", f"{name}=1", "--", "true")
    assert refused.returncode == 2
    assert f"--env {name}" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_a_key_in_the_environment_is_for_nobody_elses_eyes(stackctl: Stackctl, tmp_path: Path) -> None:
    words = ("run", "--name", "a", "--env", "WANDB_API_KEY", "--", "true")
    assert stackctl(*words, env={"WANDB_API_KEY": "of-mine"}).returncode == 0
    holding = [path for path in (tmp_path / "runs").rglob("*") if path.is_file() and b"of-mine" in path.read_bytes()]
    assert [path.name for path in holding] == ["job.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600


def test_an_image_that_the_catalog_does_not_know(stackctl: Stackctl) -> None:
    slip = stackctl("run", "--on", "compose", "--image", "tensorflw", "--dry-run", "--", "true")
    assert (slip.returncode, "did you mean 'tensorflow'?" in slip.stderr) == (2, True)
    other = stackctl("run", "--on", "compose", "--image", "me/mine:1", "--dry-run", "--", "true")
    assert "its ranks get torch's variables" in other.stderr
    words = ("--image", "me/mine:1", "--framework", "tensorflow", "--dry-run", "--", "true")
    named = stackctl("run", "--on", "compose", *words)
    assert "note" not in named.stderr
    assert "STACK_FRAMEWORK: tensorflow" in named.stdout
    wrong = stackctl("run", "gpt", "--framework", "horovod", "--dry-run")
    assert (wrong.returncode, "has its own" in wrong.stderr) == (2, True)


def test_a_command_line_in_one_word_is_no_traceback(tmp_path: Path) -> None:
    env = environment(PYTHONPATH=str(ROOT / "images"), STACK_OUT=str(tmp_path / "out"))
    argv = [sys.executable, "-m", "stackrt.launch", "--", f"python train.py {'x' * 300}"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 78
    assert "command not found (it has spaces: were its words meant to be several?)" in done.stderr
    assert "Traceback" not in done.stderr
