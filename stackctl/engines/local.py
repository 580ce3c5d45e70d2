"""Nodes as processes on this machine: start them, pass signals on, wait."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stackctl.errors import MissingHere
from stackrt.signals import NOTICES, STOPS, handled

_PR_SET_PDEATHSIG = 1
_START_UP_SECONDS = 1.0
_POLL_SECONDS = 0.05

STRAGGLER_SECONDS = 20.0
"""How long the other nodes may live once one has failed. The launchers end each other in 15 s; one that never met the
others, that is paused or whose launcher was killed, cannot."""


class Command(msgspec.Struct, frozen=True):
    """A program to start: its arguments and its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


def run(
    commands: Sequence[Command],
    *,
    cwd: Path,
    to_stderr: bool = False,
    into: int | None = None,
    keep: Sequence[int] = (),
) -> list[int]:
    """Start every command, wait for all, return their exit codes (negative: minus the signal's number).

    Stop signals go on to each command, and we then wait for them to end in their own time; so do SIGUSR1 and SIGUSR2.
    Once one has failed the others end by themselves; one that cannot is ended after a while.

    Args:
        to_stderr: Send their output to our standard error, so that our own stays data.
        into: A descriptor for all that they print, in place of our own streams.
        keep: Descriptors that stay open in them.

    Raises:
        MissingHere: A program is not installed; those already started are killed.
    """
    started: list[subprocess.Popen[bytes]] = []
    early_signals: list[int] = []
    begun = time.monotonic()

    def pass_on(number: int) -> None:
        if len(started) < len(commands):
            early_signals.append(number)  # a node that is being started would miss it
            return
        # A launcher that still imports its modules would answer SIGINT with a traceback; SIGTERM just ends it.
        early = time.monotonic() - begun < _START_UP_SECONDS and number == signal.SIGINT
        for process in started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if early else number)

    with handled(pass_on, (*STOPS, *NOTICES)):
        try:
            for command in commands:
                # A session of its own: Ctrl-C then reaches a node once, through us, and not twice.
                started.append(
                    subprocess.Popen(
                        command.argv,
                        env=command.env,
                        cwd=cwd,
                        stdin=subprocess.DEVNULL,
                        stdout=2 if to_stderr and into is None else into,
                        stderr=into,
                        start_new_session=True,
                        pass_fds=keep,
                        preexec_fn=_prepare,  # noqa: PLW1509
                    )
                )
            begun = time.monotonic()
            for number in early_signals:
                pass_on(number)
            return _wait(started)
        except FileNotFoundError as error:
            raise MissingHere(f"the program {error.filename!r} is not installed here") from None
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()


def beside(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> int:
    """Run a program with our own standard streams until its end; its exit code, 128 + n for signal n.

    Ctrl-C in the terminal reaches it by itself, and is its matter alone.
    """

    def usual() -> None:
        for number in NOTICES:
            signal.signal(number, signal.SIG_DFL)

    child = subprocess.Popen(argv, env=env, cwd=cwd, preexec_fn=usual)  # noqa: PLW1509

    def pass_on(number: int) -> None:
        if number not in (signal.SIGINT, signal.SIGQUIT):
            child.send_signal(number)

    with handled(pass_on):
        code = child.wait()
    return 128 - code if code < 0 else code


def _wait(started: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    failed_at: float | None = None
    while any(process.poll() is None for process in started):
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
        if failed_at is None and any(process.returncode for process in started):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > STRAGGLER_SECONDS:
            for process in started:
                if process.poll() is None:
                    process.terminate()
            failed_at = time.monotonic()
    return [process.wait() for process in started]


@contextmanager
def reserved_port(wanted: int | None, first: int, *, tries: int = 100) -> Iterator[int]:
    """Within the block, a port on this machine's loopback that no other run of ours takes.

    The socket that holds it does not listen and allows reuse, so that the launcher can still take the port, while
    another run's attempt to reserve it fails. Only Linux lets a held port be taken so: elsewhere it is let go, and of
    two runs that start in the same moment the second may find it taken.

    Args:
        wanted: This port and no other; by default the first free one from `first` on.

    Raises:
        MissingHere: The port, or each of `tries` ports, is in use.
    """
    for port in [wanted] if wanted else range(first, first + tries):
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except PermissionError:
                raise MissingHere(f"port {port} is not for this user", hint="name one above 1023 with --port") from None
            except OSError:
                continue
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform != "linux":
                held.close()
            yield port
            return
    what = f"port {wanted} is in use" if wanted else f"no port from {first} to {first + tries - 1} is free"
    raise MissingHere(what, hint="name another with --port")


def _prepare() -> None:
    """In the child, before exec: be told to end when stackctl is killed, so that no training is orphaned."""
    for number in NOTICES:
        signal.signal(number, signal.SIG_IGN)  # till the launcher hears them, or one would end it
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def gpu_ids(count: int, *, check: bool = True) -> list[str]:
    """The ids of `count` GPUs that are ours to use: the first of CUDA_VISIBLE_DEVICES, else of the machine's.

    Args:
        check: See that there are so many; a dry run may be for another machine.

    Raises:
        MissingHere: There are fewer.
    """
    if not count:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [part.strip() for part in named.split(",")] if named else [str(number) for number in range(count)]
    if check:
        from stackrt.launch.gpus import count_visible

        visible = count_visible()
        if visible < count or len(ids) < count:
            raise MissingHere(
                f"{count} GPUs are asked for, and {min(visible, len(ids)) if named else visible} can be seen here",
                hint="ask for fewer with --gpus, or train on the CPU with --procs",
            )
    return ids[:count]


def has_program(name: str, path: str, cwd: Path) -> bool:
    """Whether a command can be found, as a rank that starts in a folder will look for it."""
    folders = [str(cwd / folder) for folder in path.split(os.pathsep)]
    return shutil.which(str(cwd / name) if "/" in name else name, path=os.pathsep.join(folders)) is not None


def has_module(name: str) -> bool:
    """Whether a package can be imported by the interpreter that runs us, without importing it."""
    import importlib.util

    return importlib.util.find_spec(name) is not None


def environment(program: str = "", tell: Callable[[str], None] = lambda _text: None) -> dict[str, str]:
    """Our environment, with the interpreter's own folder first on PATH, so that `python` is the one that runs us.

    Where a virtual or conda environment is active, a program of the user's own is that one's.

    Args:
        program: What the user asked for, if it is theirs.
        tell: Is told if this has another `python` than their shell.
    """
    env = dict(os.environ)
    ours, path = str(Path(sys.executable).parent), env.get("PATH") or os.defpath
    active = [f"{folder}/bin" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if (folder := env.get(name))]
    if program and set(active) & set(path.split(os.pathsep)):
        env["PATH"] = os.pathsep.join([path, ours])
        return env
    env["PATH"] = os.pathsep.join([ours, path])
    if program.startswith("python"):
        theirs, found = shutil.which(program, path=path), shutil.which(program, path=env["PATH"])
        if theirs and found and os.path.realpath(Path(theirs).parent) != os.path.realpath(Path(found).parent):
            tell(f"note: {program} is {found}, not {theirs}: no environment is active")
    return env
