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
from tests.support.processes import background
from tests.support.running import SAVES, Running, ranks_of, read, wait_until_gone
from tests.support.waiting import until


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
    assert saves.ended(20) == 130, saves.said()
    assert [saves.rank_log(rank).count("saved after") for rank in (0, 1)] >= [1, 1], saves.said()
    assert read(saves.out / "run.json")["state"] == "stopped"
    wait_until_gone(saves.out)


@pytest.mark.needs("linux")
@pytest.mark.parametrize("name", ["SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_to_stackctl_alone_reach_every_rank(name: str, saves: Running) -> None:
    saves.process.send_signal(getattr(signal, name))
    notice = name.startswith("SIGUSR")
    assert saves.ended(20) == (0 if notice else 130), saves.said()
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
        until(lambda: log.exists() and "line 3" in log.read_text(), 30)
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


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_parent_that_has_turned_childrens_ends_off(how: str, tmp_path: Path) -> None:
    """A failed job must not look like one that succeeded, and none may hang."""
    turn = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    if how == "blocked":
        turn = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])"
    code = f"import os, signal, sys; {turn}; os.execv(sys.argv[1], sys.argv[1:])"
    argv = [sys.executable, "-c", code, STACKCTL, "run", "--out", str(tmp_path / "out"), "--", "sh", "-c", "exit 3"]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1, done.stderr
    assert "exited with code 3" in done.stderr
    assert read(tmp_path / "out" / "run.json")["state"] == "failed"


@pytest.mark.parametrize(
    ("script", "code"), [("exec {} >&-", 0), ("exec {} <&- >&-", 0), ("exec {} >/dev/full", 0), ("exec {} | true", 0)]
)
def test_an_output_that_takes_nothing_changes_no_outcome(script: str, code: int, tmp_path: Path) -> None:
    command = f"{STACKCTL} run --out {tmp_path / 'out'} -- echo hi"
    argv = ["bash", "-o", "pipefail", "-c", script.format(command)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert read(tmp_path / "out" / "run.json")["state"] == "succeeded"
    assert (tmp_path / "out" / "logs" / "attempt-1" / "rank-0.log").read_text() == "hi\n"


def test_a_command_is_looked_for_where_its_ranks_start(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "project" / "bin").mkdir(parents=True)
    for name in ("run.sh", "bin/tool"):
        (tmp_path / "project" / name).write_text("#!/bin/sh\necho $PWD\n")
        (tmp_path / "project" / name).chmod(0o755)
    assert stackctl("run", "--name", "a", "--", "./run.sh", cwd=tmp_path / "project").returncode == 0
    again = stackctl("run", "--resume", "--name", "a")
    assert f"[0] {tmp_path / 'project'}" in again.stdout, again.stderr
    path = f"{tmp_path / 'project' / 'bin'}:/usr/bin:/bin"
    assert stackctl("run", "--env", f"PATH={path}", "--", "tool").returncode == 0
    assert stackctl("run", "--", "sh", "-c", "true", env={"PATH": ""}).returncode == 0


def test_an_environment_that_is_named_and_not_active_is_none(stackctl: Stackctl) -> None:
    words = ("run", "--", "python", "-c", "import sys; print(sys.executable)")
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        done = stackctl(*words, env={"VIRTUAL_ENV": "", "CONDA_PREFIX": "", name: "/nonexistent"})
        assert f"[0] {Path(sys.executable).parent}/python" in done.stdout


def test_json_of_names_that_are_not_utf8(stackctl: Stackctl, tmp_path: Path) -> None:
    out = str(tmp_path / os.fsdecode(b"o\xff"))
    done = stackctl("run", "--out", out, "--json", "--", "echo", "hi")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["folder"] == out
    plan = stackctl("run", "--out", out, "--resume", "--dry-run", "--json")
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)[0]["env"]["STACK_OUT"] == out


def test_a_run_goes_on_where_it_was(stackctl: Stackctl, tmp_path: Path) -> None:
    assert stackctl("run", "--name", "a", "--", "true").returncode == 0
    record = tmp_path / "runs" / "a" / "run.json"
    record.write_text(record.read_text().replace('"local"', '"compose"'))
    plan = stackctl("run", "--resume", "--name", "a", "--dry-run")
    assert "services:" in plan.stdout
    plan = stackctl("run", "--resume", "--name", "a", "--dry-run", "--on", "local")
    assert "services:" not in plan.stdout
    record.write_text(record.read_text().replace('"compose"', '"kubernetes"'))
    refused = stackctl("run", "--resume", "--name", "a")
    assert (refused.returncode, "submit it again" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("job.json", '"nodes": 1', '"nodes": 0', "nodes 0: must be from 1"),
        ("job.json", '"procs": 1', '"procs": -1', "procs -1: must be from 1"),
        ("job.json", '"env": {}', '"env": {"RANK": "1"}', "--env RANK"),
        ("job.json", '"env": {}', '"env": {"A=B": "1"}', "--env A=B"),
        ("job.json", "{", "[" * 100_000, "is not a job"),
        ("job.json", '"true"', "", "command: is empty"),
    ],
)
def test_a_job_that_somebody_has_edited(
    file: str, old: str, new: str, said: str, stackctl: Stackctl, tmp_path: Path
) -> None:
    assert stackctl("run", "--name", "a", "--", "true").returncode == 0
    path = tmp_path / "runs" / "a" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    refused = stackctl("run", "--resume", "--name", "a")
    assert refused.returncode == 2, refused.stderr
    assert said in refused.stderr
    assert not (tmp_path / "runs" / "a" / "logs" / "attempt-2").exists()


@pytest.mark.parametrize("record", ["{", "[]", '{"attempt": "x"}', "null", "\udcff"])
def test_a_damaged_record_loses_no_logs_and_no_list(record: str, stackctl: Stackctl, tmp_path: Path) -> None:
    assert stackctl("run", "--name", "a", "--", "echo", "first").returncode == 0
    folder = tmp_path / "runs" / "a"
    (folder / "run.json").write_text(record, errors="surrogateescape")
    (folder / "failure.json").write_text('{"exit_code": "oops", "last_lines": 7}')
    assert stackctl("list").returncode == 0
    again = stackctl("run", "--resume", "--name", "a")
    assert again.returncode == 0, again.stderr
    assert (folder / "logs" / "attempt-1" / "rank-0.log").read_text() == "first\n"
    assert read(folder / "run.json")["attempt"] == 2
    started = {"name": "a", "backend": "local", "attempt": 2, "started": "2026-11-29T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps({**started, "state": "running"}))
    (folder / "failure.json").write_text('{"exit_code": "oops", "last_lines": 7}')
    assert "failed" in stackctl("list").stdout
    assert stackctl("status", "a").returncode == 0
