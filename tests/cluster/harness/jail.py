"""The first process of the cluster's own PID, mount and network namespaces: it starts, kills and clears up.

It is started by `unshare`, takes one command a line of JSON on its input and gives one answer a line. When the
input ends, because the tests are done or because their process was killed in whatever way, it kills everything
in here and removes what a kernel does not: the cgroups and the state folder. Mounts, links and addresses go with
the namespaces. Only the standard library: this file is run by its path.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CGROUPS = Path("/sys/fs/cgroup")


class Jail:
    """What runs in here, and what must be removed at the end."""

    def __init__(self) -> None:
        self.groups: dict[str, int] = {}  # a started program's name -> its process group
        self.ended: dict[str, int] = {}  # a program that ended by itself -> its wait status
        self.state: Path | None = None
        self.cgroup = ""

    def own(self, state: str, cgroup: str, nodes: list[str]) -> dict[str, Any]:
        """Make the state folder and the cgroups, which are removed at the end."""
        self.state, self.cgroup = Path(state), cgroup
        self.remove_leftovers()
        self.state.mkdir(parents=True)
        for controller in controllers():
            for name in (cgroup, *(f"{cgroup}/{node}" for node in nodes)):
                make_cgroup(controller / name)
        return {}

    def start(self, name: str, argv: list[str], env: dict[str, str], log: str) -> dict[str, Any]:
        """Start a program in a session of its own; its output is appended to `log`."""
        output = (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        quiet = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        self.ended.pop(name, None)
        self.groups[name] = os.posix_spawnp(
            argv[0], argv, env, file_actions=[quiet, output, (os.POSIX_SPAWN_DUP2, 1, 2)], setsid=True
        )
        return {}

    def kill(self, name: str) -> dict[str, Any]:
        """Kill a program with all that is in its session or namespaces, as a power failure would."""
        group = self.groups.pop(name)
        while alive(group):
            os.killpg(group, signal.SIGKILL)
            self.reap()
            time.sleep(0.01)
        self.ended.pop(name, None)
        return {}

    def status(self) -> dict[str, Any]:
        """The programs that ended by themselves, with their wait statuses."""
        self.reap()
        return {"ended": self.ended}

    def reap(self) -> None:
        """Collect every child that has ended: the first process inherits all orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, group in self.groups.items():
                if group == pid:
                    self.ended[name] = status

    def clear(self) -> None:
        """Kill everything, then remove the link to the machine, the cgroups and the state folder."""
        try:
            while True:
                os.kill(-1, signal.SIGKILL)
                os.waitpid(-1, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        subprocess.run(["ip", "link", "delete", "eth0"], stderr=subprocess.DEVNULL, check=False)
        if self.state:
            self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove the cgroups, in which no process is left, and the state folder."""
        for tree in (CGROUPS, *CGROUPS.iterdir()):
            for folder, _, _ in os.walk(tree / self.cgroup, topdown=False):
                Path(folder).rmdir()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.state)], check=False)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def controllers() -> list[Path]:
    """The roots of the machine's cgroup trees: one for each controller, or the only one."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink() and path.name != "unified"]


def make_cgroup(path: Path) -> None:
    """Make a cgroup that can hold others, whichever version of cgroups this is."""
    path.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path.parent / name).exists():
            (path / name).write_text((path.parent / name).read_text())
    for folder in (path.parent, path):
        if (folder / "cgroup.subtree_control").exists():
            (folder / "cgroup.subtree_control").write_text("+cpuset +cpu +io +memory +pids")


def main() -> None:
    jail = Jail()
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "own": jail.own,
        "start": jail.start,
        "kill": jail.kill,
        "status": jail.status,
    }
    print(json.dumps({"ready": True}), flush=True)
    try:
        while True:
            readable, _, _ = select.select([sys.stdin], [], [], 0.5)
            jail.reap()
            if not readable:
                continue
            line = sys.stdin.readline()
            if not line:
                return
            words = json.loads(line)
            try:
                answer = commands[words.pop("do")](**words)
            except Exception as error:  # the tests are told, and decide
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
    finally:
        jail.clear()


if __name__ == "__main__":
    main()
