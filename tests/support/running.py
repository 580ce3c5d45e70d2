"""Runs in the background, and what tests ask of them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.commands import STACKCTL, environment, hear_signals
from tests.support.waiting import until

LOOP = """\
import os, sys, time
rank = os.environ["RANK"]
for number in range(600):
    print(f"rank {rank} line {number}", flush=True)
    time.sleep(0.1)
"""
"""A script for drills: it prints its rank and a line number ten times a second."""

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
"""Another that saves half a second long, once, when it is asked to end."""


def read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict)
    return value


class Running:
    """A `stackctl run` in the background."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.out = folder / "out"
        self.name = f"t{os.getpid()}-{time.monotonic_ns() % 10**9}"
        argv = [STACKCTL, "run", "--out", str(self.out), "--name", self.name, *words]
        self.log = (folder / "stackctl.log").open("w+")
        self.process = subprocess.Popen(
            argv,
            env=environment(),
            cwd=folder,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            preexec_fn=hear_signals,
        )

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def ended(self, seconds: float) -> int:
        """Its exit code; where it does not end in time, all that can be told of it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            processes = subprocess.run(
                ["ps", "-eo", "pid,ppid,stat,wchan,args"], capture_output=True, text=True, check=True
            )
            ours = [
                line
                for line in processes.stdout.splitlines()
                if "stackctl" in line or "stackrt" in line or ".py" in line
            ]
            logs = [self.rank_log(rank)[-500:] for rank in range(2)]
            raise AssertionError("\n".join(["did not end", self.said(), *logs, *ours])) from None

    def rank_log(self, rank: int) -> str:
        path = self.out / "logs" / "attempt-1" / f"rank-{rank}.log"
        return path.read_text() if path.exists() else ""

    def wait_for_ranks(self, count: int, seconds: float = 60) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.said()
            return all("line 3" in self.rank_log(rank) for rank in range(count))

        until(ready, seconds)

    def container(self, node: int) -> str:
        return f"{self.name}-node-{node}-1"


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


def wait_until_gone(out: Path, seconds: float = 5) -> None:
    """Wait until no process of a run is left."""
    until(lambda: ranks_of(out) == [], seconds)
