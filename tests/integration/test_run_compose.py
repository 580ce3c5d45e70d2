"""`stackctl run --on compose`, in health and in failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.engines import compose
from stackctl.errors import NameTaken
from tests.commands import STACKCTL, Stackctl, environment
from tests.support.images import with_entrypoint
from tests.support.processes import background, children
from tests.support.running import LOOP, SAVES, Running, read
from tests.support.waiting import until

SMALL = ["--", "--steps", "6", "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch-size", "4",
         "--eval-tokens", "2000", "--sample-tokens", "20"]  # fmt: skip


@pytest.mark.needs("docker", "torch")
@pytest.mark.usefixtures("leaves_nothing")
def test_the_same_job_gives_the_same_parameters_everywhere(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    """Parity: 2 x 2 as processes, 2 x 2 in containers, 1 x 4 as processes: one sha256 of the parameters."""
    runs = {
        "local 2x2": ["--nodes", "2", "--procs", "2"],
        "compose 2x2": ["--nodes", "2", "--procs", "2", "--on", "compose"],
        "local 1x4": ["--nodes", "1", "--procs", "4"],
    }
    results = {}
    for name, words in runs.items():
        out = tmp_path / name.replace(" ", "-")
        done = stackctl("run", "gpt", *words, "--seed", "5", "--out", str(out), *SMALL)
        assert done.returncode == 0, done.stderr
        results[name] = read(out / "result.json")
    assert len({result["params_sha256"] for result in results.values()}) == 1, results
    assert {result["world_size"] for result in results.values()} == {4}


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_outputs_of_containers_belong_to_the_caller_and_never_to_root(
    image: str, stackctl: Stackctl, tmp_path: Path
) -> None:
    script = "import os, pathlib; pathlib.Path(os.environ['STACK_OUT'], os.environ['RANK']).touch()"
    words = ["--nodes", "2", "--on", "compose", "--out", str(tmp_path / "out")]
    done = stackctl("run", *words, "--", "python", "-c", script)
    assert done.returncode == 0, done.stderr
    owner = os.getuid() or 1000
    made = [tmp_path / "out" / "0", tmp_path / "out" / "1", *(tmp_path / "out" / "logs").rglob("*")]
    assert {path.stat().st_uid for path in made} == {owner}


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_folder_of_any_name_reaches_the_container(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    folder = tmp_path / "a b:c$HOME"
    folder.mkdir()
    for path in (tmp_path, folder):
        path.chmod(0o777)
    (folder / "mine.py").write_text("import os; open(os.environ['STACK_OUT'] + '/made', 'w').write('here')")
    out = folder / "out"
    done = stackctl("run", "--on", "compose", "--out", str(out), "--", "python", "mine.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (out / "made").read_text() == "here"


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_an_image_with_an_entrypoint_of_its_own(image: str, stackctl: Stackctl, tmp_path: Path) -> None:
    with with_entrypoint(image) as own:
        words = ["--on", "compose", "--image", own, "--out", str(tmp_path / "out")]
        done = stackctl("run", *words, "--", "echo", "here")
    assert done.returncode == 0, done.stderr
    assert "[0] here" in done.stdout.splitlines()


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_killed_rank_ends_every_container_within_5_seconds(image: str, start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "2", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(4)
    killed = kill_rank(run.container(1), 3)
    until(lambda: exited(run.container(0)) and exited(run.container(1)), 15)
    assert time.monotonic() - killed <= 5
    assert run.process.wait(30) == 1
    report = read(run.out / "failure.json")
    assert (report["node"], report["rank"], report["signal"]) == (1, 3, "SIGKILL")
    assert report["last_lines"][-1].startswith("rank 3 line ")
    assert "rank 3" in run.said()


def kill_rank(container: str, rank: int) -> float:
    """Kill one rank from inside its container, as the kernel's OOM killer would; returns when."""
    script = (
        "import os, pathlib, signal\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/environ'):\n"
        "    try: env = path.read_bytes().split(b'\\0')\n"
        "    except OSError: continue\n"
        f"    if b'RANK={rank}' in env: os.kill(int(path.parent.name), signal.SIGKILL); os._exit(0)\n"
        "raise SystemExit('no such rank')\n"
    )
    subprocess.run(["docker", "exec", container, "python", "-c", script], capture_output=True, check=True)
    return time.monotonic()


def exited(container: str) -> bool:
    """Whether a container has ended, or is gone already."""
    argv = ["docker", "inspect", "--format", "{{.State.Status}}", container]
    state = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    return state in ("", "exited", "dead")


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("how", ["paused", "network gone"])
def test_a_node_that_is_cut_off_ends_the_job_within_15_seconds(
    how: str, image: str, start: Callable[..., Running]
) -> None:
    run = start("--nodes", "2", "--procs", "1", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(2)
    if how == "paused":
        subprocess.run(["docker", "pause", run.container(1)], capture_output=True, check=True)
    else:
        network = f"{run.name}_default"
        subprocess.run(["docker", "network", "disconnect", network, run.container(1)], capture_output=True, check=True)
    assert until(lambda: exited(run.container(0)), 20) <= 15
    assert run.process.wait(40) == 1
    report = read(run.out / "failure.json")
    assert (report["reason"], report["node"]) == ("node-lost", 1)
    assert "node 1" in run.said()


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_interrupting_a_compose_run_stops_and_removes_it(image: str, start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "1", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(2)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(30) == 130
    assert read(run.out / "run.json")["state"] == "stopped"


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize(
    ("command", "heard", "state"),
    [
        (["stop"], "SIGTERM", "stopped"),
        (["kill", "--signal", "TERM"], "SIGTERM", "stopped"),
        (["kill", "--signal", "QUIT"], "SIGTERM", "stopped"),
        (["kill", "--signal", "USR1"], "SIGUSR1", "succeeded"),
    ],
    ids=" ".join,
)
def test_a_signal_to_one_container_reaches_every_rank(
    command: list[str], heard: str, state: str, image: str, start: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "saves.py").write_text(SAVES)
    run = start("--nodes", "2", "--procs", "1", "--on", "compose", "--", "python", "saves.py")
    run.wait_for_ranks(2)
    subprocess.run(["docker", *command, run.container(1)], capture_output=True, check=True)
    assert run.process.wait(40) == (0 if state == "succeeded" else 130), run.said()
    assert read(run.out / "run.json")["state"] == state
    assert [run.rank_log(rank).count(f"saved after {heard}") for rank in (0, 1)] == [1, 1], run.said()


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_signal_while_containers_are_being_started_stops_them_too(image: str, start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "1", "--on", "compose", "--", "python", "loop.py")
    until((run.out / "compose.yaml").exists, 30)
    until(lambda: bool(children(run.process.pid)), 30)  # `docker compose up`
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(40) == 130, run.said()
    assert read(run.out / "run.json")["state"] == "stopped"


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("times", [1, 8])
def test_ctrl_c_in_a_terminal_reaches_docker_too_and_leaves_nothing(
    times: int, image: str, start: Callable[..., Running]
) -> None:
    run = start("--nodes", "2", "--procs", "1", "--on", "compose", "--", "python", "loop.py")
    until((run.out / "compose.yaml").exists, 30)
    until(lambda: bool(children(run.process.pid)), 30)
    for _ in range(times):
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.3)
    assert run.process.wait(40) == 130, run.said()
    assert read(run.out / "run.json")["state"] == "stopped"


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_name_that_containers_have_is_exit_4(image: str, start: Callable[..., Running], stackctl: Stackctl) -> None:
    run = start("--nodes", "1", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(1)
    taken = stackctl("run", "--on", "compose", "--name", run.name, "--", "python", "-c", "0")
    assert taken.returncode == 4
    assert run.container(0) in taken.stderr
    assert run.process.poll() is None, "the running job goes on"


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("service", ["node-0", "node-1"])
def test_who_takes_a_name_at_the_same_moment_leaves_the_other_run_alone(
    service: str, image: str, start: Callable[..., Running], tmp_path: Path
) -> None:
    """Past its own look at the name, it finds the other's containers of the same services, or makes one of its own."""
    run = start("--nodes", "1", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(1)
    file = tmp_path / "compose.yaml"
    file.write_text(json.dumps({"services": {service: {"image": image, "command": ["true"]}}}))
    if service == "node-0":
        with pytest.raises(NameTaken, match=run.container(0)):
            compose.run(file, run.name, {})
    else:
        assert compose.run(file, run.name, {}) == [0]
    lines = len(run.rank_log(0))
    until(lambda: len(run.rank_log(0)) > lines, 10, run.said)
    assert compose.own(run.name, file) == []
    assert compose.others(run.name, file) == [run.container(0)]


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_what_a_killed_stackctl_leaves_is_gone_on_with_or_removed(
    image: str, stackctl: Stackctl, tmp_path: Path
) -> None:
    name, runs = f"killed-{os.getpid()}", tmp_path / "runs"
    tmp_path.chmod(0o755)  # containers run as another user than root
    (tmp_path / "loop.py").write_text(LOOP)

    def killed(attempt: int, *words: str) -> None:
        argv = [STACKCTL, "run", "--name", name, *words]
        with background(argv, env=environment(STACK_RUNS=str(runs)), cwd=tmp_path) as process:
            log = runs / name / "logs" / f"attempt-{attempt}" / "rank-0.log"
            until(lambda: log.exists() and "line 3" in log.read_text(), 60)
            process.kill()

    killed(1, "--on", "compose", "--", "python", "loop.py")
    refused = stackctl("run", "--resume", "--name", name)
    assert refused.returncode == 4
    assert f"end them first: stackctl cancel {name}" in refused.stderr
    subprocess.run(["docker", "kill", f"{name}-node-0-1"], capture_output=True, check=True)
    killed(2, "--resume")
    assert f"stackctl cancel {name}" in stackctl("wait", name).stderr
    cancelled = stackctl("cancel", name)
    assert (cancelled.returncode, cancelled.stdout.split(";")[0]) == (0, f"{name}: cancelled"), cancelled.stderr
    assert read(runs / name / "run.json")["state"] == "stopped"
    assert compose.others(name, tmp_path / "none") == []


@pytest.mark.needs("docker")
def test_an_image_that_is_not_built_is_exit_3(stackctl: Stackctl, tmp_path: Path) -> None:
    failed = stackctl("run", "gpt", "--on", "compose", env={"STACK_IMAGE_PREFIX": "absent-"})
    assert failed.returncode == 3
    assert "stackctl build pytorch" in failed.stderr
    assert not (tmp_path / "runs").exists(), "nothing is half-made"


def test_no_docker_is_exit_3(stackctl: Stackctl, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    failed = stackctl("run", "gpt", "--on", "compose", env={"PATH": str(tmp_path / "empty")})
    assert failed.returncode == 3
    assert "docker" in failed.stderr
    assert not (tmp_path / "runs").exists(), "nothing is half-made"
