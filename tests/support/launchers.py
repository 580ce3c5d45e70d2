"""Real launchers, real ranks, on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.waiting import until

IMAGES = Path(__file__).parents[2] / "images"
TOKEN = "a token for the drills"


class Node:
    """One launcher process."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: Path, stderr: Path) -> None:
        self.process, self._stdout, self._stderr = process, stdout, stderr
        self.pid = process.pid

    def wait(self, seconds: float = 20) -> int:
        """Exit code, as a shell would give it."""
        code = self.process.wait(seconds)
        return code if code >= 0 else 128 - code

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def out(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._stderr.read_text(errors="replace")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)


class Job:
    """The launchers of one run; every process of it carries the run's name in its environment.

    Attributes:
        READY: Python code for a rank: print `up`, then wait for `go`.
    """

    READY = """
import os, signal, time
print("up", flush=True)
while not os.path.exists(os.environ["STACK_OUT"] + "/go"):
    time.sleep(0.01)
"""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, f"drill-{os.urandom(6).hex()}"
        self.out = folder / "out"
        self.port = free_port()
        self.nodes: list[Node] = []

    def node(
        self,
        rank: int,
        *command: str,
        nodes: int = 2,
        procs: int = 2,
        options: tuple[str, ...] = (),
        stdout: int | None = None,
        **changes: str,
    ) -> Node:
        """Start a launcher; `changes` are environment variables."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("STACK_")}
        env |= {
            "PYTHONPATH": str(IMAGES),
            "STACK_RUN": self.run,
            "STACK_NODES": str(nodes),
            "STACK_NODE_RANK": str(rank),
            "STACK_PROCS": str(procs),
            "STACK_DEVICE": "cpu",
            "STACK_RENDEZVOUS": f"127.0.0.1:{self.port}",
            "STACK_TOKEN": TOKEN,
            "STACK_OUT": str(self.out),
            "STACK_TIMEOUT": "20",
        } | changes
        number = len(self.nodes)
        paths = self.folder / f"launcher-{number}.out", self.folder / f"launcher-{number}.err"
        with paths[0].open("wb") as out, paths[1].open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "stackrt.launch", *options, "--", *command],
                env=env,
                stdout=out if stdout is None else stdout,
                stderr=err,
                start_new_session=True,
            )
        started = Node(process, *paths)
        self.nodes.append(started)
        return started

    def pair(self, *command: str, **more: Any) -> tuple[Node, Node]:
        """Start both nodes of a two-node job."""
        return self.node(0, *command, **more), self.node(1, *command, **more)

    def processes(self) -> dict[int, dict[str, str]]:
        """Environment by process id, of every live process of this run: launchers, guards, ranks, their children."""
        found: dict[int, dict[str, str]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                env = dict(pair.split("=", 1) for pair in (entry / "environ").read_text().split("\0") if "=" in pair)
                zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if env.get("STACK_RUN") == self.run and not zombie:
                    found[pid] = env
        return found

    def ranks(self) -> dict[int, int]:
        """Process id by rank, of the ranks themselves."""
        found: dict[int, int] = {}
        for pid, env in self.processes().items():
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                if "RANK" in env and os.getsid(pid) == pid:
                    found[int(env["RANK"])] = pid
        return found

    def failure(self) -> dict[str, Any]:
        content = json.loads((self.out / "failure.json").read_text())
        assert isinstance(content, dict)
        return content

    def log(self, rank: int, attempt: int = 1) -> str:
        path = self.out / "logs" / f"attempt-{attempt}" / f"rank-{rank}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def all_started(self, world: int = 4) -> dict[int, int]:
        """Wait until every rank has printed `up`; return process ids by rank."""
        until(lambda: all("up" in self.log(rank) for rank in range(world)))
        return self.ranks()

    def go(self) -> None:
        """Let ranks that are `READY` go on, all at once."""
        (self.out / "go").touch()

    def gone(self, seconds: float = 5) -> None:
        """Wait until no process of the run is left."""
        until(lambda: not self.processes(), seconds)

    def clean_up(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.process.kill()
            node.process.wait()
