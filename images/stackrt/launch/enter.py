"""Run a command beside a rank: with its environment, in its working folder. Standard library only.

`python -P -m stackrt.launch.enter RUN NODE LOCAL_RANK [COMMAND…]`, on the machine or in the container of that node;
without a command it is a shell. The command takes this program's place, so its exit code is the command's own.
"""

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stackrt.frameworks import DEFAULT, FRAMEWORKS

SHELLS = ("bash", "sh")
"""A shell is the first of these that there is, after the SHELL of the rank."""
NOT_THERE, NO_COMMAND = 3, 127
"""Exit codes: the rank has no process here; there is no such command, as shells say it."""

PROC = Path("/proc")


class CannotEnter(Exception):
    """A rank cannot be entered, or not with this command; carries what to do, and an exit code."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


class Rank(NamedTuple):
    """A rank that runs: its environment as it was started with, and the folder that it is in."""

    pid: int
    env: dict[str, str]
    folder: str


def find(run: str, node: int, local_rank: int, *, out: str = "") -> Rank:
    """Find a rank's process, by its environment and its parent, which is a launcher.

    Args:
        out: the run's folder, where one machine may have several runs of a name.

    Raises:
        CannotEnter: it has none that this user may look into.
    """
    if not PROC.is_dir():
        raise CannotEnter("only Linux tells what a process was started with", "use a container or a cluster", NOT_THERE)
    for path in PROC.glob("[0-9]*"):
        env = _environment(path)
        if env.get("STACK_RUN") != run or "STACK_TOKEN" in env or (out and env.get("STACK_OUT") != out):
            continue
        parent = _environment(PROC / str(_parent(path)))
        if "STACK_TOKEN" in parent and parent.get("STACK_RUN") == run and _place(env) == (node, local_rank):
            try:
                return Rank(int(path.name), env, str((path / "cwd").readlink()))
            except OSError:
                continue  # it has just ended
    raise CannotEnter(
        f"local rank {local_rank} of node {node} has no process: it has not started yet, or has ended",
        f"`stackctl status {run}` says how the run fares",
        NOT_THERE,
    )


def stop(run: str, *, out: str) -> None:
    """Ask a run's launcher to end, which asks its ranks.

    Raises:
        CannotEnter: none of its ranks runs.
    """
    launcher = _parent(PROC / str(find(run, 0, 0, out=out).pid))
    if launcher > 1:
        os.kill(launcher, signal.SIGTERM)


def plan(rank: Rank, command: Sequence[str], own: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command line, its program as a path, and the environment.

    Args:
        command: what to run; nothing for a shell.
        own: our own environment, which knows the terminal.

    Raises:
        CannotEnter: there is no such command, or no shell.
    """
    env = {**rank.env, "PWD": rank.folder, **{name: own[name] for name in ("TERM", "COLORTERM") if name in own}}
    path = env.get("PATH", os.defpath)
    for name in [command[0]] if command else [env.get("SHELL", ""), *SHELLS]:
        program = str(Path(rank.folder, name)) if "/" in name else name
        found = shutil.which(program, path=path) if name else None
        if found:
            return [found, *command[1:]], env
    if command:
        raise CannotEnter(f"there is no program {command[0]!r} where the rank runs", "its PATH is " + path, NO_COMMAND)
    wanted = " nor ".join(SHELLS)
    raise CannotEnter(
        f"there is no shell where the rank runs, neither {wanted}", "`stackctl exec` starts other programs", NO_COMMAND
    )


def main() -> int:
    """Become the command; return an exit code if that cannot be."""
    run, node, local_rank, *command = sys.argv[1:]
    try:
        rank = find(run, int(node), int(local_rank))
        argv, env = plan(rank, command, os.environ)
        os.chdir(rank.folder)
        os.execve(argv[0], argv, env)  # noqa: S606 - what a person asks for
    except CannotEnter as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return error.code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return NO_COMMAND - 1


def _environment(process: Path) -> dict[str, str]:
    """Return what a process was started with; nothing if it has gone, or is another user's."""
    try:
        data = (process / "environ").read_bytes()
    except OSError:
        return {}
    rows = (os.fsdecode(row).partition("=") for row in data.split(b"\0") if b"=" in row)
    return {name: value for name, _, value in rows}


def _parent(process: Path) -> int:
    try:
        # The fields after the name, which is in brackets and may hold anything (proc(5)).
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _place(env: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the node and local rank that an environment is of."""
    try:
        framework = FRAMEWORKS[env.get("STACK_FRAMEWORK", DEFAULT)]
        return int(env["STACK_NODE_RANK"]), framework.local_rank(env)
    except (KeyError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
