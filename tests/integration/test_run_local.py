"""`stackctl run` as processes, in health and in failure."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.engines import local
from stackctl.errors import MissingHere
from tests.commands import STACKCTL, Stackctl, environment, hear_signals
from tests.support.processes import background, interrupt_at_start
from tests.support.running import Running, read, wait_until_gone


def test_each_rank_has_a_log_and_the_run_a_record(stackctl: Stackctl, tmp_path: Path) -> None:
    done = stackctl("run", "--nodes", "2", "--procs", "2", "--json", "--", "python", "-c", "print('hello')")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    folder = Path(outcome["folder"])
    assert folder.parent == tmp_path / "runs"
    assert outcome["run"]["state"] == "succeeded"
    assert outcome["run"]["exit_code"] == 0
    assert [(folder / "logs" / "attempt-1" / f"rank-{rank}.log").read_text() for rank in range(4)] == ["hello\n"] * 4
    assert read(folder / "job.json")["nodes"] == 2
    assert read(folder / "run.json") == outcome["run"]
    token = [path for path in folder.rglob("*") if path.is_file() and b"STACK_TOKEN=" in path.read_bytes()]
    assert token == []


def test_a_failing_job_is_exit_1_with_the_rank_its_code_and_its_last_lines(stackctl: Stackctl) -> None:
    script = "import os, sys; print('rank', os.environ['RANK']); sys.exit(3 if os.environ['RANK'] == '1' else 0)"
    failed = stackctl("run", "--procs", "2", "--", "python", "-c", script)
    assert failed.returncode == 1
    assert "rank 1" in failed.stderr
    assert "exited with code 3" in failed.stderr
    assert "  | rank 1" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_command_that_does_not_exist(stackctl: Stackctl, tmp_path: Path) -> None:
    failed = stackctl("run", "--nodes", "2", "--", "no-such-program", "--x")
    assert failed.returncode == 2
    assert failed.stderr.count("no-such-program") == 1
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "runs").exists(), "nothing is half-made"


def test_a_launcher_can_take_the_port_that_is_reserved_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform in dict.fromkeys([sys.platform, "darwin"]):
        monkeypatch.setattr(sys, "platform", platform)
        with local.reserved_port(None, 29400) as port, socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.needs("linux")
def test_only_linux_can_hold_a_port_that_its_launcher_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        local.reserved_port(None, 29400) as port,
        pytest.raises(MissingHere, match=f"port {port} is in use"),
        local.reserved_port(port, 0),
    ):
        pass
    monkeypatch.setattr(sys, "platform", "darwin")
    with local.reserved_port(None, 29400) as port, socket.socket() as launcher:
        launcher.bind(("127.0.0.1", port))  # which macOS refuses while another socket is bound to it


def test_a_port_in_use_is_named_and_none_is_chosen_by_default(stackctl: Stackctl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = stackctl("run", "--nodes", "2", "--port", str(port), "--", "python", "-c", "0", timeout=10)
        assert failed.returncode == 3
        assert f"port {port} is in use" in failed.stderr
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 29400))
            taken.listen()
        except OSError:
            pass  # something else holds it, which serves as well
        assert stackctl("run", "--nodes", "2", "--", "python", "-c", "0").returncode == 0


def test_a_taken_folder_is_exit_4_and_nothing_is_lost(stackctl: Stackctl, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert stackctl("run", "--out", out, "--", "python", "-c", "print(1)").returncode == 0
    before = {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()}
    again = stackctl("run", "--out", out, "--", "python", "-c", "print(2)")
    assert again.returncode == 4
    assert "--resume" in again.stderr
    assert {path: path.read_bytes() for path in Path(out).rglob("*") if path.is_file()} == before
    other = stackctl("run", "--out", out, "--resume", "--", "python", "-c", "print(3)")
    assert other.returncode == 2
    assert stackctl("run", "--out", out, "--resume").returncode == 0
    assert (Path(out) / "logs" / "attempt-2" / "rank-0.log").read_text() == "1\n"


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "absent.txt"], "--data absent.txt: No such file"),
        (["--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["--steps", "0"], "--steps 0: must be 1 or more"),
    ],
)
def test_what_is_wrong_with_a_workloads_arguments_is_told_once(words: list[str], said: str, stackctl: Stackctl) -> None:
    """Every rank fails alike and one says why; that one is the failure that is reported."""
    failed = stackctl("run", "gpt", "--nodes", "2", "--procs", "2", "--", *words)
    assert failed.returncode == 1
    assert "error: rank 0 (node 0" in failed.stderr
    assert f"  | error: {said}" in failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout
    assert "terminate called" not in failed.stderr + failed.stdout


def test_a_workload_whose_packages_are_absent_says_what_to_install(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nold = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else old(name, *rest)\n"
    )
    failed = stackctl("run", "gpt", env={"PYTHONPATH": str(tmp_path)})
    assert failed.returncode == 3
    assert "make train-env" in failed.stderr
    assert not (tmp_path / "runs").exists(), "nothing is half-made"


@pytest.mark.needs("linux")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)])
def test_an_interrupted_run_ends_everything_it_started(
    number: signal.Signals, code: int, start: Callable[..., Running]
) -> None:
    run = start("--nodes", "2", "--procs", "2", "--", "python", "loop.py")
    run.wait_for_ranks(4)
    run.process.send_signal(number)
    assert run.process.wait(20) == code
    wait_until_gone(run.out)
    assert read(run.out / "run.json")["state"] == "stopped"


def python_has_started(pid: int) -> None:
    """Wait out the interpreter's own start, where it answers SIGINT with a traceback, until our first line undoes that.

    We look only for a while: that moment is short, and may pass between two looks.
    """
    end, caught = time.monotonic() + 2, False
    while time.monotonic() < end:
        (mask,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        before, caught = caught, bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)
        if before and not caught:
            return
        time.sleep(0.001)


@pytest.mark.needs("linux")
def test_ctrl_c_at_any_moment_is_130_without_a_traceback(tmp_path: Path) -> None:
    for moment in range(16):
        out = tmp_path / f"out{moment}"
        argv = [STACKCTL, "run", "--nodes", "2", "--out", str(out), "--", "sleep", "60"]
        with background(argv, env=environment(), preexec_fn=hear_signals) as process:
            python_has_started(process.pid)
            time.sleep(moment * 0.04)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)[0]
        assert process.returncode in (130, -signal.SIGINT), (moment, said)
        assert "Traceback" not in said, (moment, said)
        wait_until_gone(out)


@pytest.mark.needs("linux")
@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("node", [0, 1])
def test_ctrl_c_while_a_node_is_being_started_ends_every_node(node: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.monotonic()
    interrupt_at_start(monkeypatch, node)
    commands = [local.Command(argv=("sleep", "60"), env=environment())] * 2
    assert local.run(commands, cwd=Path.cwd()) == [-signal.SIGTERM] * 2
    assert time.monotonic() - begun < 15


@pytest.mark.needs("linux")
def test_a_run_that_goes_on_is_not_resumed(start: Callable[..., Running], stackctl: Stackctl) -> None:
    run = start("--", "python", "loop.py")
    run.wait_for_ranks(1)
    refused = stackctl("run", "--resume", "--out", str(run.out))
    assert refused.returncode == 4
    assert "still going on" in refused.stderr
    assert run.process.poll() is None


def test_an_interrupt_that_python_drops_comes_again() -> None:
    """What is raised in a finalizer or in a callback of the import system is dropped."""
    script = (
        "import time\n"
        "from stackctl import __main__ as entry\n"
        "from stackctl.cli import main\n"
        "class Dropped:\n"
        "    def __del__(self): raise KeyboardInterrupt\n"
        "def run():\n"
        "    Dropped()\n"
        "    time.sleep(60)\n"
        "main.main = run\n"
        "entry.main()\n"
    )
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, preexec_fn=hear_signals)
    assert (done.returncode, "ignored" in done.stderr) == (-signal.SIGINT, False), done.stderr


def test_runs_side_by_side_do_not_meet(stackctl: Stackctl, tmp_path: Path) -> None:
    argv = [STACKCTL, "run", "--nodes", "2", "--", "python", "-c", "import time; time.sleep(1)"]
    env = environment(STACK_RUNS=str(tmp_path / "runs"))
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(background(argv, env=env)) for _ in range(4)]
        said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert len(list((tmp_path / "runs").iterdir())) == 4


def test_modules_of_the_working_folder_do_not_stand_in_for_the_launchers(stackctl: Stackctl, tmp_path: Path) -> None:
    for name in ("hmac", "secrets", "json", "selectors"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    assert stackctl("run", "--nodes", "2", "--", "true").returncode == 0


def test_gpus_that_are_not_there_are_exit_3(stackctl: Stackctl, tmp_path: Path) -> None:
    failed = stackctl("run", "--gpus", "64", "--", "true")
    assert failed.returncode == 3
    assert "64 GPUs are asked for" in failed.stderr
    assert not (tmp_path / "runs").exists()
    plan = stackctl("run", "--gpus", "2", "--dry-run", "--", "true", env={"CUDA_VISIBLE_DEVICES": "4,5"})
    assert "CUDA_VISIBLE_DEVICES=4,5" in plan.stdout


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    argv = ["sh", "-c", f"trap '' INT HUP; exec {STACKCTL} run --out {tmp_path / 'out'} -- sleep 2"]
    with background(argv, env=environment()) as process:
        time.sleep(1)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
    assert process.returncode == 0, said


@pytest.mark.needs("linux")
def test_a_killed_stackctl_leaves_no_training_behind(start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "2", "--", "python", "loop.py")
    run.wait_for_ranks(4)
    run.process.kill()
    wait_until_gone(run.out, 15)
