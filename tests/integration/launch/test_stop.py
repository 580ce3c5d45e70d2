"""Signals to launchers, and launchers that die."""

import contextlib
import os
import signal
import sys
import time
from typing import Any

import pytest

from stackrt.signals import NOTICES, STOPS, TOGETHER
from tests.support.launchers import Job
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc

HANDLER = """
import os, signal, subprocess, sys, time
def finish(number, frame):
    time.sleep(0.5)
    print("checkpoint after", signal.Signals(number).name, "worker", worker.poll(), flush=True)
    sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, finish)
worker = subprocess.Popen(["sleep", "600"])
print("up", flush=True)
time.sleep(600)
"""
HEARS = """
import os, signal, time
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, lambda number, _: print("heard", signal.Signals(number).name, flush=True))
print("up", flush=True)
while not os.path.exists(os.environ["STACK_OUT"] + "/go"):
    time.sleep(0.01)
"""
DEAF = """
import signal, time

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_every_rank_finish(job: Job, target: int, number: signal.Signals, code: int) -> None:
    nodes = job.pair(sys.executable, "-c", HANDLER)
    job.all_started()
    nodes[target].signal(number)
    assert [node.wait() for node in nodes] == [code, code], nodes[0].err
    for rank in range(4):
        assert f"checkpoint after {number.name} worker None" in job.log(rank)
    assert not (job.out / "failure.json").exists(), "a stop is no failure"
    job.gone()


def test_ranks_that_do_not_end_are_killed_after_the_grace(job: Job) -> None:
    nodes = job.pair(sys.executable, "-c", DEAF, options=("--grace", "3"))
    job.all_started()
    nodes[0].signal(signal.SIGTERM)
    assert [node.wait(7) for node in nodes] == [143, 143]
    assert "rank 0, 1 did not end within 3 s: killing" in nodes[0].err
    assert "rank 2, 3 did not end within 3 s: killing" in nodes[1].err
    job.gone()


def test_a_second_signal_kills_at_once(job: Job) -> None:
    nodes = job.pair(sys.executable, "-c", DEAF)
    job.all_started()
    for pause in (0.2, TOGETHER + 0.1):  # the second is the same request still
        nodes[1].signal(signal.SIGINT)
        time.sleep(pause)
        assert nodes[0].running
        assert nodes[1].running
    nodes[1].signal(signal.SIGINT)
    assert [node.wait(10) for node in nodes] == [130, 130]
    job.gone()


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("first", ["launchers", "ranks"])
def test_every_process_signalled_at_once(first: str, number: signal.Signals, job: Job) -> None:
    """As `systemctl stop`, a shutdown and Slurm do it: ranks hear of it twice, and guards as well."""
    nodes = job.pair(sys.executable, "-c", HANDLER)
    ranks = job.all_started()
    own = {node.pid for node in nodes}
    others = set(job.processes()) - own - set(ranks.values())
    for pid in [*own, *others, *ranks.values()][:: 1 if first == "launchers" else -1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    assert [node.wait() for node in nodes] == [128 + number] * 2, nodes[0].err
    assert all("checkpoint after" in job.log(rank) for rank in range(4)), [node.err for node in nodes]
    assert not (job.out / "failure.json").exists(), nodes[0].err
    job.gone()


def test_ranks_that_die_of_a_stop_before_their_launcher_hears_of_it(job: Job) -> None:
    nodes = job.pair(sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")
    for pid in job.all_started().values():
        with contextlib.suppress(ProcessLookupError):  # the launcher ends the others once it sees one's end
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    for node in nodes:
        node.signal(signal.SIGTERM)
    assert [node.wait() for node in nodes] == [143, 143], nodes[0].err
    assert not (job.out / "failure.json").exists(), nodes[0].err


@pytest.mark.parametrize("number", NOTICES)
@pytest.mark.parametrize("targets", [[0], [1], [0, 1]])
def test_a_notice_reaches_every_rank_once(targets: list[int], number: signal.Signals, job: Job) -> None:
    nodes = job.pair(sys.executable, "-c", HEARS)
    job.all_started()
    for target in targets:
        nodes[target].signal(number)
    time.sleep(0.5)
    job.go()
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err
    assert [job.log(rank).count(f"heard {number.name}") for rank in range(4)] == [1] * 4


def test_a_notice_before_the_start_is_nothing(job: Job) -> None:
    node = job.node(0, "true")
    until(lambda: "waiting for" in node.err)
    node.signal(signal.SIGUSR1)
    until(lambda: "SIGUSR1: no rank to pass it to" in node.err)
    assert job.node(1, "true").wait() == 0
    assert node.wait() == 0


@pytest.mark.parametrize("between", [0, 0.2])
def test_all_launchers_signalled_about_at_once(job: Job, between: float) -> None:
    """As Compose or a cluster does: the relayed stop may come first, and must not make the signal a second one."""
    nodes = job.pair(sys.executable, "-c", HANDLER)
    job.all_started()
    for node in nodes:
        node.signal(signal.SIGTERM)
        time.sleep(between)
    assert [node.wait() for node in nodes] == [143, 143]
    assert all("checkpoint after SIGTERM" in job.log(rank) for rank in range(4)), [node.err for node in nodes]
    job.gone()


def test_a_shells_child_is_asked_too(job: Job) -> None:
    script = (
        f"{sys.executable} -c '{DEAF.replace('signal.SIG_IGN', 'lambda *_: (print(1234, flush=True), exit())')}'; :"
    )
    node = job.node(0, "sh", "-c", script, nodes=1, procs=1)
    job.all_started(1)
    node.signal(signal.SIGTERM)
    assert node.wait(15) == 143
    assert "1234" in job.log(0)
    job.gone()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_while_waiting_ends_at_once(job: Job, rank: int) -> None:
    node = job.node(rank, "true")
    until(lambda: "waiting for" in node.err)
    node.signal(signal.SIGTERM)
    assert node.wait(5) == 143
    assert not (job.out / "failure.json").exists()


def test_a_node_stopped_before_the_start_may_come_back(job: Job) -> None:
    first = job.node(0, "true", nodes=3)
    second = job.node(1, "true", nodes=3)
    until(lambda: "waiting for node 2 of 3" in first.err)
    second.signal(signal.SIGTERM)
    assert second.wait(5) == 143
    until(lambda: "node 1 left before the start (stopped by SIGTERM)" in first.err)
    again = [job.node(1, "true", nodes=3), job.node(2, "true", nodes=3)]
    assert [node.wait() for node in (first, *again)] == [0, 0, 0]


def test_ranks_die_with_the_launcher_even_without_its_guard(job: Job) -> None:
    """`pkill -9 -f stackrt.launch` hits both."""
    node = job.node(0, sys.executable, "-c", DEAF, nodes=1)
    ranks = job.all_started(2)
    guards = set(job.processes()) - {node.pid, *ranks.values()}
    assert len(guards) == 1
    os.kill(guards.pop(), signal.SIGKILL)
    node.signal(signal.SIGKILL)
    job.gone()


@pytest.mark.parametrize("target", [0, 1])
def test_a_killed_launcher_leaves_no_orphans_and_is_named(job: Job, target: int) -> None:
    nodes = job.pair(sys.executable, "-c", HANDLER)
    job.all_started()
    nodes[target].signal(signal.SIGKILL)
    assert nodes[1 - target].wait(15) == 75
    job.gone()
    report = job.failure()
    assert (report["reason"], report["node"], report["exit_code"]) == ("node-lost", target, 75)
    assert f"node {target} of 2" in report["sentence"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_closed_terminal_lets_every_rank_finish(job: Job, times: int) -> None:
    """A shell that ends passes on the SIGHUP that the kernel sends as well: two, and the second does not kill."""
    nodes = job.pair(sys.executable, "-c", HANDLER)
    job.all_started()
    for _ in range(times):
        nodes[0].signal(signal.SIGHUP)
        time.sleep(0.1)
    assert [node.wait() for node in nodes] == [129, 129]
    assert all("checkpoint after SIGTERM worker None" in job.log(rank) for rank in range(4)), nodes[0].err


def test_under_nohup_a_closed_terminal_is_nothing(job: Job) -> None:
    script = "import os, time; print('up', flush=True); time.sleep(1)"
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        node = job.node(0, sys.executable, "-c", script, nodes=1)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    job.all_started(2)
    node.signal(signal.SIGHUP)
    assert node.wait() == 0


SAVES = """
import os, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, save)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("trap", ["", "trap 'echo cleaning' TERM INT USR1;"], ids=["plain", "trap"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)])
def test_what_a_shell_script_runs_hears_of_a_signal_once(
    number: signal.Signals, code: int, trap: str, job: Job
) -> None:
    """A shell waits for its child before it heeds a signal; its child saves meanwhile."""
    (job.folder / "saves.py").write_text(SAVES)
    node = job.node(0, "bash", "-c", f"{trap} {sys.executable} {job.folder}/saves.py; exit $?", nodes=1, procs=1)
    job.all_started(1)
    node.signal(number)
    assert node.wait(10) == code, node.err
    assert job.log(0).count(f"saved after {number.name}") == 1, job.log(0)
    job.gone()


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_signals_that_a_parent_has_turned_off(how: str, job: Job) -> None:
    """A child's end that is ignored, or no signal that comes: job runners and traps of shells leave that behind."""
    numbers = [signal.SIGCHLD, signal.SIGTERM]
    if how == "ignored":
        before: Any = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        nodes = [job.node(0, "sh", "-c", "exit 3", nodes=1)]
        stopped = job.node(0, sys.executable, "-c", SAVES, nodes=1, procs=1, STACK_OUT=str(job.folder / "other"))
    finally:
        if how == "ignored":
            signal.signal(signal.SIGCHLD, before)
        else:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert nodes[0].wait(10) == 3, nodes[0].err
    log = job.folder / "other" / "logs" / "attempt-1" / "rank-0.log"
    until(lambda: log.exists() and "up" in log.read_text())
    stopped.signal(signal.SIGTERM)
    assert stopped.wait(10) == 143
