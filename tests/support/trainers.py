"""Real training processes for tests, forked from one that has already imported the trainer."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import free_port

HERE = Path(__file__).parent
PAYLOAD = HERE.parents[1] / "images"


def environment(**extra: str) -> dict[str, str]:
    """This environment without a launcher's variables; one CPU thread, the same for every layout."""
    dropped = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in dropped and not key.startswith("STACK_")}
    return kept | {"PYTHONPATH": str(PAYLOAD), "STACK_DEVICE": "cpu", "OMP_NUM_THREADS": "1"} | extra


@dataclass
class Process:
    """One trainer process."""

    pid: int
    log: Path
    server: "Trainers" = field(repr=False)

    def wait(self, timeout: float = 120) -> int | None:
        """Its exit code, negative for a signal; None if it still runs."""
        code: int | None = self.server.ask({"wait": {"pid": self.pid, "timeout": timeout}})
        if code is not None:
            self.server.running.discard(self.pid)
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self.log.read_text() if self.log.exists() else ""


class Trainers:
    """Starts trainers through the fork server."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        self.running: set[int] = set()
        assert self._read() == "ready"

    def ask(self, request: dict[str, Any]) -> Any:
        assert self._server.stdin
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._server.stdout
        return json.loads(self._server.stdout.readline())

    def start(self, argv: list[str], log: Path, **env: str) -> Process:
        """Start one process; its output is appended to `log`."""
        pid: int = self.ask({"start": {"argv": argv, "env": env, "log": str(log)}})
        self.running.add(pid)
        return Process(pid, log, self)

    def start_ranks(self, nodes: int, procs: int, argv: list[str], logs: Path, **env: str) -> list[Process]:
        """Start nodes x procs ranks as a launcher would, with a log each."""
        logs.mkdir(parents=True, exist_ok=True)
        common = {"WORLD_SIZE": str(nodes * procs), "LOCAL_WORLD_SIZE": str(procs), "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": str(free_port())}  # fmt: skip
        places = [(node, local) for node in range(nodes) for local in range(procs)]
        folders = env.pop("TEST_FOLDERS", "").split(":")  # one working folder a node, as separate machines have
        return [
            self.start(argv, logs / f"rank-{rank}.log", RANK=str(rank), LOCAL_RANK=str(local), GROUP_RANK=str(node),
                       TEST_FOLDER=folders[node % len(folders)], **common, **env)
            for rank, (node, local) in enumerate(places)
        ]  # fmt: skip

    def run(self, argv: list[str], log: Path, **env: str) -> str:
        """Run one process to its end, which must be a good one; returns its output."""
        process = self.start(argv, log, **env)
        code = process.wait()
        assert code == 0, process.output
        return process.output

    def run_ranks(self, nodes: int, procs: int, argv: list[str], logs: Path, **env: str) -> None:
        """Run several ranks to their good end."""
        ranks = self.start_ranks(nodes, procs, argv, logs, **env)
        codes = [rank.wait() for rank in ranks]
        assert codes == [0] * len(ranks), "\n".join(rank.output for rank in ranks)

    def end_all(self) -> None:
        """End what a failed test left."""
        for pid in list(self.running):
            os.kill(pid, signal.SIGKILL)
            self.ask({"wait": {"pid": pid, "timeout": 10}})
        self.running.clear()

    def close(self) -> None:
        """End the server."""
        self.end_all()
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.wait(60)  # it ends with torch loaded: seconds on a busy machine
        self._server.stdout.close()
