"""What ranks print: to the launcher's stdout with a prefix, to files as it is, and never lost."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.launchers import Job
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")  # the drills find processes through /proc


def test_lines_are_prefixed_and_files_are_not(job: Job) -> None:
    script = r"""
import os, sys
out = sys.stdout.buffer
out.write(b"one\ntwo\r\n\xff\xfe not UTF-8\n10%\r20%\rdone\n\nno line end")
out.flush()
print("on stderr", file=sys.stderr)
"""
    node = job.node(0, sys.executable, "-c", script, nodes=1, procs=1)
    assert node.wait() == 0
    raw = (job.folder / "launcher-0.out").read_bytes()
    assert raw == (
        b"[0] one\n[0] two\n[0] \xff\xfe not UTF-8\n[0] 10%\n[0] 20%\n[0] done\n[0] \n[0] no line endon stderr\n"
    )
    log = (job.out / "logs" / "attempt-1" / "rank-0.log").read_bytes()
    assert log == b"one\ntwo\r\n\xff\xfe not UTF-8\n10%\r20%\rdone\n\nno line endon stderr\n"


def test_prefixes_have_one_width(job: Job) -> None:
    node = job.node(0, "sh", "-c", "echo hello", nodes=1, procs=11)
    assert node.wait() == 0
    assert sorted(node.out.splitlines()) == sorted(f"[{rank:2}] hello" for rank in range(11))


def test_a_giant_line_is_cut_for_display_only(job: Job) -> None:
    node = job.node(0, sys.executable, "-c", "print('x' * 1_000_000)", nodes=1, procs=1)
    assert node.wait() == 0
    assert node.out.replace("[0] ", "").replace("\n", "") == "x" * 1_000_000
    assert job.log(0) == "x" * 1_000_000 + "\n"


def test_a_flood_to_a_slow_reader_loses_nothing_and_does_not_stop_the_heartbeats(job: Job) -> None:
    lines = 60_000
    script = f"for i in range({lines}): print(i, 'x' * 100)"
    readable, writable = os.pipe()
    first = job.node(0, sys.executable, "-c", script, stdout=writable)
    os.close(writable)
    second = job.node(1, "true")
    # Longer than the silence that means lost; pipe and buffer are full long before.
    time.sleep(9)
    assert first.running
    assert second.running, "node 1 still hears node 0, and waits for its ranks"
    received = bytearray()
    while data := os.read(readable, 65_536):
        received += data
    os.close(readable)
    assert [first.wait(), second.wait()] == [0, 0]
    for rank in range(2):
        prefix = b"[%d] " % rank
        shown = [line[len(prefix) :] for line in bytes(received).splitlines() if line.startswith(prefix)]
        assert [int(line.split()[0]) for line in shown] == list(range(lines))
        assert job.log(rank).count("\n") == lines


def test_a_rank_that_fails_behind_a_stuck_reader_still_ends_all(job: Job) -> None:
    readable, writable = os.pipe()
    script = "while True: print('x' * 1000)"
    node = job.node(0, sys.executable, "-c", job.READY + script, nodes=1, stdout=writable)
    os.close(writable)
    ranks = job.all_started(2)
    job.go()
    time.sleep(0.5)
    os.kill(ranks[1], signal.SIGKILL)
    until(lambda: not job.ranks() and (job.out / "failure.json").exists())
    assert job.failure()["rank"] == 1
    assert node.wait(25) == 137, "the launcher gives a reader that takes nothing 10 s"
    os.close(readable)


def test_a_reader_that_goes_away_does_not_end_the_job(job: Job) -> None:
    readable, writable = os.pipe()
    script = "import time\nfor i in range(20): print(i); time.sleep(0.02)"
    node = job.node(0, sys.executable, "-c", script, nodes=1, stdout=writable)
    os.close(writable)
    os.close(readable)
    assert node.wait() == 0
    assert job.log(1).count("\n") == 20


def test_our_stdout_keeps_its_blocking_mode(job: Job) -> None:
    readable, writable = os.pipe()
    node = job.node(0, "true", nodes=1, stdout=writable)
    assert node.wait() == 0
    assert os.get_blocking(writable)
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize("session", ["", "setsid "])
def test_a_grandchild_that_holds_the_pipe_does_not_hang_the_end(job: Job, session: str) -> None:
    node = job.node(0, "sh", "-c", f"{session}sleep 600 & echo up", nodes=1, procs=1)
    assert node.wait(15) == 0
    assert "up" in node.out
    if not session:
        job.gone()


def test_dev_null_and_closed_streams_work(job: Job) -> None:
    node = job.node(0, "echo", "hello", nodes=1, stdout=subprocess.DEVNULL)
    assert node.wait() == 0
    env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
    env |= {"PYTHONPATH": "images", "STACK_OUT": str(job.out), "STACK_RUN": job.run, "STACK_DEVICE": "cpu"}
    shell = f"exec {sys.executable} -m stackrt.launch -- echo hello >&- 2>&-"
    assert subprocess.run(["sh", "-c", shell], env=env, timeout=10, check=False).returncode == 0
    assert job.log(0) == "hello\n"
