"""Processes that a test starts, and looks into."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def background(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose output the test reads; killed if the test fails before it has ended.

    Args:
        options: Of Popen; by default standard error comes with standard output.
    """
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(argv, text=True, **{**streams, **options}) as process:
        try:
            yield process
        finally:
            process.kill()


def interrupt_at_start(patch: pytest.MonkeyPatch, number: int = 0) -> None:
    """Send this process SIGINT when the next program, or the `number`-th after it, is about to be started."""
    start, numbers = subprocess.Popen, itertools.count()

    def interrupted(*words: Any, **more: Any) -> subprocess.Popen[Any]:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return start(*words, **more)

    patch.setattr(subprocess, "Popen", interrupted)


def children(pid: int) -> set[int]:
    """Process ids of what a process has started, of those of both that have not ended."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(OSError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found
