"""Nodes that fall silent without closing anything, as behind a broken network."""

import contextlib
import os
import signal
import sys
import time

import pytest

from tests.support.launchers import Job

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc

SLEEP = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_cut_off_node_ends_the_job_within_15_seconds_and_ends_itself_when_it_is_back(job: Job, victim: int) -> None:
    nodes = job.pair(*SLEEP)
    ranks = job.all_started()
    frozen = [nodes[victim].pid, *(pid for rank, pid in ranks.items() if rank // 2 == victim)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        assert nodes[1 - victim].wait(15) == 75
        assert time.monotonic() - stopped < 15
        report = job.failure()
        assert (report["reason"], report["node"], report["host"] is not None) == ("node-lost", victim, True)
        assert f"node {victim} of 2" in report["sentence"]
        assert "nothing heard from it" in report["sentence"]
        others = {rank for rank in job.ranks() if rank // 2 != victim}
        assert not others, "the healthy node's ranks have ended"
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    assert nodes[victim].wait() == 75
    assert job.failure()["node"] == victim
    job.gone()


def test_ranks_that_fail_because_a_node_is_cut_off_are_not_blamed(job: Job) -> None:
    """Node 1 freezes; 3 s later, long before it counts as lost, a rank of node 0 gives up on it."""
    script = "if os.environ['RANK'] == '0': os._exit(1)\ntime.sleep(600)"
    nodes = job.pair(sys.executable, "-c", job.READY + script)
    ranks = job.all_started()
    for pid in (nodes[1].pid, ranks[2], ranks[3]):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    job.go()
    assert nodes[0].wait(12) == 75
    assert job.failure()["node"] == 1


def test_a_suspended_machine_is_not_a_lost_node(job: Job) -> None:
    """Both launchers stop for longer than the silence that means lost; then all goes on."""
    nodes = job.pair(sys.executable, "-c", "import time; print('up', flush=True); time.sleep(12)")
    job.all_started()
    for node in nodes:
        node.signal(signal.SIGSTOP)
    time.sleep(10)
    for node in nodes:
        node.signal(signal.SIGCONT)
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err + nodes[1].err
