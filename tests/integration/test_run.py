"""`stackctl run` as a user runs it: as processes and in Compose, in health and in failure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import STACKCTL, Stackctl, environment

SMALL = ["--", "--steps", "6", "--layers", "1", "--width", "32", "--heads", "2", "--context", "32", "--batch-size", "4",
         "--eval-tokens", "2000", "--sample-tokens", "20"]  # fmt: skip

LOOP = """\
import os, sys, time
rank = os.environ["RANK"]
for number in range(600):
    print(f"rank {rank} line {number}", flush=True)
    time.sleep(0.1)
"""


def read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until a condition holds; returns how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not come about in time"
        time.sleep(0.05)
    return time.monotonic() - start


class Running:
    """A `stackctl run` in the background."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.out = folder / "out"
        self.name = f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
        argv = [STACKCTL, "run", "--out", str(self.out), "--name", self.name, *words]
        self.log = (folder / "stackctl.log").open("w+")
        self.process = subprocess.Popen(
            argv, env=environment(), cwd=folder, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def rank_log(self, rank: int) -> str:
        path = self.out / "logs" / "attempt-1" / f"rank-{rank}.log"
        return path.read_text() if path.exists() else ""

    def wait_for_ranks(self, count: int, seconds: float = 60) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            return all("line 3" in self.rank_log(rank) for rank in range(count))

        wait_for(ready, seconds)

    def container(self, node: int) -> str:
        return f"{self.name}-node-{node}-1"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start runs that are ended, with all they started, when the test ends."""
    running: list[Running] = []

    def begin(*words: str) -> Running:
        tmp_path.chmod(0o755)  # containers run as another user than root
        (tmp_path / "loop.py").write_text(LOOP)
        running.append(Running(tmp_path, *words))
        return running[-1]

    yield begin
    for run in running:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.send_signal(signal.SIGINT)
            try:
                run.process.wait(30)
            except subprocess.TimeoutExpired:
                run.process.kill()
        run.log.close()


def ranks_of(out: Path) -> list[int]:
    """Process ids of every process on this machine whose environment names this run's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"STACK_OUT={out}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


# As processes


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
    wait_for(lambda: ranks_of(run.out) == [], 5)
    assert read(run.out / "run.json")["state"] == "stopped"


@pytest.mark.needs("linux")
def test_ctrl_c_at_any_moment_is_130_without_a_traceback(tmp_path: Path) -> None:
    for moment in range(16):
        out = tmp_path / f"out{moment}"
        argv = [STACKCTL, "run", "--nodes", "2", "--out", str(out), "--", "sleep", "60"]
        process = subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(moment * 0.04)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[0]
        assert process.returncode in (130, -signal.SIGINT), (moment, said)
        assert "Traceback" not in said, (moment, said)
        assert ranks_of(out) == []


def test_runs_side_by_side_do_not_meet(stackctl: Stackctl, tmp_path: Path) -> None:
    argv = [STACKCTL, "run", "--nodes", "2", "--", "python", "-c", "import time; time.sleep(1)"]
    env = environment(STACK_RUNS=str(tmp_path / "runs"))
    running = [
        subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)
    ]
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


@pytest.mark.needs("linux")
def test_a_killed_stackctl_leaves_no_training_behind(start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "2", "--", "python", "loop.py")
    run.wait_for_ranks(4)
    run.process.kill()
    wait_for(lambda: ranks_of(run.out) == [], 15)


# In Compose


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
def test_a_killed_rank_ends_every_container_within_5_seconds(image: str, start: Callable[..., Running]) -> None:
    run = start("--nodes", "2", "--procs", "2", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(4)
    killed = kill_rank(run.container(1), 3)
    ended = wait_for(lambda: exited(run.container(0)) and exited(run.container(1)), 15) - (time.monotonic() - killed)
    assert ended <= 5
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
        f"    if b'RANK={rank}' in env: os.kill(int(path.parent.name), signal.SIGKILL)\n"
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
    assert wait_for(lambda: exited(run.container(0)), 20) <= 15
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
def test_a_name_that_containers_have_is_exit_4(image: str, start: Callable[..., Running], stackctl: Stackctl) -> None:
    run = start("--nodes", "1", "--on", "compose", "--", "python", "loop.py")
    run.wait_for_ranks(1)
    taken = stackctl("run", "--on", "compose", "--name", run.name, "--", "python", "-c", "0")
    assert taken.returncode == 4
    assert run.container(0) in taken.stderr
    assert run.process.poll() is None, "the running job goes on"


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
