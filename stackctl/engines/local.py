"""Nodes as processes on this machine: start them, pass signals on, wait."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import msgspec

from stackctl.errors import MissingHere

_PR_SET_PDEATHSIG = 1


class Command(msgspec.Struct, frozen=True):
    """A program to start: its arguments and its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


def run(commands: Sequence[Command], *, cwd: Path, to_stderr: bool = False) -> list[int]:
    """Start every command, wait for all, return their exit codes (negative: minus the signal's number).

    SIGINT, SIGTERM and SIGHUP go on to each command; we then wait for them to end in their own time.

    Args:
        to_stderr: Send their output to our standard error, so that our own stays data.

    Raises:
        MissingHere: A program is not installed; those already started are ended.
    """
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int) -> None:
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    with signals(pass_on):
        try:
            for command in commands:
                # A session of its own: Ctrl-C then reaches a node once, through us, and not twice.
                started.append(
                    subprocess.Popen(
                        command.argv,
                        env=command.env,
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=2 if to_stderr else None,
                        start_new_session=True,
                        preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
                    )
                )
        except FileNotFoundError as error:
            pass_on(signal.SIGKILL)
            raise MissingHere(f"the program {error.filename!r} is not installed here") from None
        return [process.wait() for process in started]


def free_port(first: int, *, tries: int = 100) -> int:
    """The first port from `first` on that nothing on this machine's loopback listens on.

    Raises:
        MissingHere: None of `tries` ports is free.
    """
    for port in range(first, first + tries):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise MissingHere(f"no port from {first} to {first + tries - 1} is free", hint="name one with --port")


@contextmanager
def signals(pass_on: Callable[[int], None]) -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP call `pass_on` with their number in place of ending us."""

    def handle(number: int, _frame: FrameType | None) -> None:
        pass_on(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """In the child, before exec: be told to end when stackctl is killed, so that no training is orphaned."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def has_module(name: str) -> bool:
    """Whether a package can be imported by the interpreter that runs us, without importing it."""
    import importlib.util

    return importlib.util.find_spec(name) is not None


def environment() -> dict[str, str]:
    """Our environment, with the interpreter's own folder first on PATH, so that `python` is the one that runs us."""
    env = dict(os.environ)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    return env
