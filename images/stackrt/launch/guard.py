"""A tiny process that ends the ranks' process groups when the launcher dies without having done so."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Collection

from stackrt.launch.environment import IS_LINUX
from stackrt.signals import NOTICES, STOPS

PR_SET_PDEATHSIG = 1
MOST_FILES = 1 << 20
"""Descriptors to close where the system names no limit (macOS) or one in the billions, which would take minutes."""
# Bound before any fork: looking it up in the child could meet a held lock of the dynamic loader.
_prctl = ctypes.CDLL(None).prctl if IS_LINUX else None


def die_with(parent: int, keep_to: Collection[int] = ()) -> Callable[[], None] | None:
    """Return what a new child runs before exec so that SIGKILL follows its parent's death; None where impossible.

    Args:
        parent: the launcher's process id.
        keep_to: CPUs that the child keeps to; all that are allowed if there is none.
    """
    prctl = _prctl
    if prctl is None:
        return None

    def arm() -> None:
        if keep_to:
            with contextlib.suppress(OSError):  # they may have been taken away since
                os.sched_setaffinity(0, keep_to)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # The parent died before the kernel was told.
            os._exit(1)

    return arm


class Guard:
    """Holds the other end of a pipe: the launcher's death, by whatever signal, closes it and wakes the guard.

    On Linux ranks also die with the launcher by themselves (PR_SET_PDEATHSIG); the guard adds their children, and
    macOS. It lives in its own session, so that nothing sent to the launcher's group reaches it.
    """

    def __init__(self) -> None:
        readable, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _keep_watch(readable)
        os.close(readable)

    def add(self, group: int) -> None:
        """Watch over a process group."""
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Forget a process group that is empty, before its number is used again."""
        self._tell(f"-{group}\n")

    def dismiss(self) -> None:
        """Let the guard go; it kills what was not removed."""
        os.close(self._pipe)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line.encode())


def _keep_watch(pipe: int) -> None:
    """Run as the guard; never returns."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        # Who signals every process of a service means the launcher, whose end is ours.
        for number in (*STOPS, *NOTICES):
            signal.signal(number, signal.SIG_IGN)
        # Nothing that others wait for may stay open here: the launcher's output, sockets, the pipe's writing end.
        os.dup2(pipe, 0)
        limit = os.sysconf("SC_OPEN_MAX")
        os.closerange(1, limit if 0 < limit < MOST_FILES else MOST_FILES)
        groups: set[int] = set()
        held = b""
        while data := os.read(0, 4096):
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
        for group in groups:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
    finally:
        os._exit(0)
