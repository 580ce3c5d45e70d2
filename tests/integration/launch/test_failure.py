"""Ranks that fail: who is named, and how fast all others end."""

import os
import signal
import sys
import time
from typing import Any

import pytest

from tests.support.launchers import Job

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc

SLEEP = "import time; print('up\\nlast words', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


@pytest.mark.parametrize("script", [SLEEP, STUBBORN], ids=["plain", "ignores SIGTERM"])
@pytest.mark.parametrize("victim", [0, 3])
def test_kill_9_of_a_rank_ends_all_within_5_seconds(job: Job, victim: int, script: str) -> None:
    nodes = job.pair(sys.executable, "-c", script)
    ranks = job.all_started()
    killed = time.monotonic()
    os.kill(ranks[victim], signal.SIGKILL)
    job.gone(5)
    took = time.monotonic() - killed
    assert took < 5
    assert [node.wait(1) for node in nodes] == [137, 137]
    report = job.failure()
    expected = {
        "schema_version": 1,
        "run": job.run,
        "attempt": 1,
        "reason": "rank-failed",
        "node": victim // 2,
        "rank": victim,
        "local_rank": victim % 2,
        "host": os.uname().nodename,
        "exit_code": 137,
        "signal": "SIGKILL",
        "last_lines": ["up", "last words"],
    }
    assert report | expected == report
    assert "out-of-memory" in report["sentence"]
    assert all(report["sentence"] in node.err for node in nodes)


def test_each_node_writes_the_same_report(job: Job) -> None:
    script = "import os, sys, time; print('went wrong'); sys.exit(3 if os.environ['RANK'] == '2' else time.sleep(600))"
    nodes = [job.node(rank, sys.executable, "-c", script, STACK_OUT=str(job.folder / str(rank))) for rank in (0, 1)]
    assert [node.wait() for node in nodes] == [3, 3]
    reports = [(job.folder / str(rank) / "failure.json").read_text() for rank in (0, 1)]
    assert reports[0] == reports[1]
    job.out = job.folder / "0"
    report = job.failure()
    assert (report["rank"], report["exit_code"], report["signal"]) == (2, 3, None)
    assert report["last_lines"] == ["went wrong"]
    assert "exited with code 3" in report["sentence"]


OWN_SERVER = {"TORCHELASTIC_USE_AGENT_STORE": "False"}
"""For scripts that listen on MASTER_PORT themselves."""
ECHOES = """
import os, signal, socket, sys, time
rank, master = int(os.environ["RANK"]), (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == {victim}:
    server = socket.create_server(master)
    peers = [server.accept() for _ in range(3)]
    print("up", flush=True)
    time.sleep({delay})
    os.kill(os.getpid(), signal.{signal})
while True:
    try:
        peer = socket.create_connection(master)
        break
    except OSError:
        time.sleep(0.02)
print("up", flush=True)
peer.recv(1)
os._exit(1)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGBUS"])
def test_a_real_cause_wins_over_its_echoes(job: Job, name: str) -> None:
    nodes = job.pair(sys.executable, "-c", ECHOES.format(victim=1, delay=0.2, signal=name), **OWN_SERVER)
    code = 128 + signal.Signals[name]
    assert [node.wait() for node in nodes] == [code, code]
    report = job.failure()
    assert (report["rank"], report["signal"]) == (1, name)


def test_a_cause_reported_after_its_echo_wins(job: Job) -> None:
    """Rank 3 exits first, as if it had seen its peer go; rank 0 on the other node is killed a little later."""
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = """
rank = os.environ["RANK"]
if rank == "3": os._exit(1)
if rank == "0": time.sleep(0.15); os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""
    nodes = job.pair(sys.executable, "-c", deaf + job.READY + script)
    job.all_started()
    job.go()
    assert [node.wait() for node in nodes] == [137, 137]
    assert job.failure()["rank"] == 0


LINGERS = """
import atexit, os, socket, sys, time
rank, master = int(os.environ["RANK"]), (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
def record(text):
    import json
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
        json.dump({{"message": {{"message": text, "extraInfo": {{}}}}}}, file)
if rank == {victim}:
    server = socket.create_server(master)
    peers = [server.accept()[0] for _ in range(3)]
    atexit.register(time.sleep, 1.5)
    atexit.register(lambda: [peer.close() for peer in peers])
    if {recorded}:
        record("ValueError: bad sample")
        sys.exit(1)
    raise ValueError("bad sample")
while True:
    try:
        peer = socket.create_connection(master)
        break
    except OSError:
        time.sleep(0.02)
peer.recv(1)
if {recorded}:
    record("RuntimeError: Connection closed by peer")
raise RuntimeError("Connection closed by peer")
"""


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("victim", [0, 3])
def test_a_rank_that_takes_a_while_to_leave_is_named_still(job: Job, victim: int, recorded: bool) -> None:
    """Its exit handlers run on after its peers have lost their connections, failed, and left."""
    nodes = job.pair(sys.executable, "-c", LINGERS.format(victim=victim, recorded=recorded), **OWN_SERVER)
    assert [node.wait() for node in nodes] == [1, 1]
    report = job.failure()
    assert (report["rank"], report["exit_code"]) == (victim, 1), report
    assert report["sentence"].endswith("failed first: it raised ValueError: bad sample")


def test_the_earliest_of_equals_is_named(job: Job) -> None:
    script = "r = int(os.environ['RANK']); time.sleep(0.2 * ((r + 1) % 4)); os._exit(10 + r)"
    nodes = job.pair(sys.executable, "-c", job.READY + script)
    job.all_started()
    job.go()
    assert [node.wait() for node in nodes] == [13, 13]
    assert job.failure()["rank"] == 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-program",), "no-such-program: command not found"),
        (("./here",), "not executable"),
        (("./script",), "can't be started"),
    ],
)
def test_a_command_that_cannot_start_ends_all_nodes_with_78(
    job: Job, command: tuple[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job.folder / "here").write_text("")
    (job.folder / "script").write_text("#!/no/such/interpreter\n")
    (job.folder / "script").chmod(0o755)
    monkeypatch.chdir(job.folder)
    nodes = job.pair(*command)
    assert [node.wait() for node in nodes] == [78, 78]
    assert all(said in node.err for node in nodes)
    assert job.failure()["reason"] == "config"
    job.gone()


def test_a_problem_of_one_node_ends_both(job: Job) -> None:
    nodes = job.node(0, "sleep", "600"), job.node(1, "sleep", "600", STACK_DEVICE="cuda")
    assert [node.wait() for node in nodes] == [78, 78]
    assert "node 1: STACK_DEVICE=cuda: 0 visible GPUs for STACK_PROCS=2" in nodes[0].err
    assert job.failure()["node"] == 1


def test_an_output_folder_that_cannot_be_written_is_refused(job: Job) -> None:
    (job.folder / "file").write_text("")
    node = job.node(0, "true", nodes=1, STACK_OUT=str(job.folder / "file"))
    assert node.wait() == 78
    assert "can't be written" in node.err
    assert node.err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"STACK_PROCS": "0"}, "stackrt.launch: STACK_PROCS=0: must be a whole number from 1"),
        ({"STACK_TOKEN": ""}, "STACK_TOKEN is not set"),
        ({"STACK_NODE_RANK": "2"}, "STACK_NODE_RANK=2: must be a whole number from 0 to 1"),
    ],
)
def test_wrong_values_are_one_line_and_78(job: Job, changes: dict[str, Any], said: str) -> None:
    node = job.node(0, "true", **changes)
    assert node.wait() == 78
    assert said in node.err
    assert node.err.count("\n") == 1


def test_a_port_in_use_is_named(job: Job) -> None:
    import socket

    with socket.create_server(("127.0.0.1", job.port)):
        node = job.node(0, "true")
        assert node.wait() == 78
    assert f"port {job.port} can't be opened: in use" in node.err
