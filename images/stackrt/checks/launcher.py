"""Does the launcher end a job whose rank has died?"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed
from stackrt.contract import PREFIX

PROCS, VICTIM = 3, 1
START_SECONDS = 20.0
END_SECONDS = 10.0
# A rank inside a collective answers no SIGTERM: the hardest case, without the seconds of importing a framework.
RANK = """\
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", os.getpid(), flush=True)
time.sleep(600)
"""


@check(
    "rank-kill",
    tags=("failure",),
    timeout=45.0,
    proves="a job with a dead rank ends and says which one, and does not burn GPU hours in a hang",
    criterion="SIGKILL to one of 3 ranks: all others end within 10 s, and the dead one is named",
)
def rank_kill(context: Context) -> Result:
    """Kill a rank of a small job, and see how the job ends."""
    out = context.scratch / "out"
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    env |= {"STACK_RUN": "rank-kill", "STACK_PROCS": str(PROCS), "STACK_DEVICE": "cpu", "STACK_OUT": str(out)}
    job = subprocess.Popen(
        [*context.launcher, "--", sys.executable, "-c", RANK], env=env, stdout=subprocess.PIPE, text=True
    )
    todo = "see docs/launcher.md, How it ends; on another launcher set a timeout for each collective"
    pids = _started(job)
    if len(pids) < PROCS:
        return failed(f"{len(pids)} of {PROCS} ranks started", expected="all of them", todo=todo)
    begun = time.monotonic()
    os.kill(pids[VICTIM], signal.SIGKILL)
    try:
        code = job.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        alive = [rank for rank, pid in pids.items() if rank != VICTIM and Path(f"/proc/{pid}").exists()]
        return failed(
            f"{END_SECONDS:g} s after rank {VICTIM} was killed the job still runs, with ranks {alive}",
            expected=f"it ends within {END_SECONDS:g} s",
            todo=todo,
        )
    seconds = time.monotonic() - begun
    left = [rank for rank, pid in pids.items() if Path(f"/proc/{pid}").exists()]
    if left or code == 0:
        what = f"ranks {left} outlive it" if left else "it ended with exit code 0"
        return failed(f"the job ended, but {what}", expected="no rank left, and an exit code other than 0", todo=todo)
    named = _named(out)
    if named != VICTIM:
        return failed(f"the report of the failure names rank {named}", expected=f"rank {VICTIM}", todo=todo)
    return passed(f"the job ended {seconds:.1f} s after a rank was killed, and named it", seconds=round(seconds, 2))


def _started(job: "subprocess.Popen[str]") -> dict[int, int]:
    """Process ids by rank, of the ranks that have said that they are up."""
    pids: dict[int, int] = {}
    deadline = time.monotonic() + START_SECONDS
    while len(pids) < PROCS and time.monotonic() < deadline:
        line = job.stdout.readline() if job.stdout else ""
        if not line:
            break
        said = re.match(r"\[(\d+)\] up (\d+)", line)
        if said:
            pids[int(said[1])] = int(said[2])
    return pids


def _named(out: Path) -> int | None:
    """The rank that failure.json blames."""
    try:
        value = json.loads((out / "failure.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    rank = value.get("rank")
    return rank if isinstance(rank, int) else None
