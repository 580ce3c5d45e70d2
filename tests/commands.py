"""The command line as a user runs it, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STACKCTL = str(Path(sys.executable).parent / "stackctl")
PREFIX = os.environ.get("STACK_TEST_PREFIX", "stacktest-")
"""Of image names of a test run: a user's own images keep theirs, as do those of a checkout that is tested beside it."""

Stackctl = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command under test."""
    return {**os.environ, "STACK_IMAGE_PREFIX": PREFIX, **extra}


def hear_signals() -> None:
    """For a child to run before exec: tests in the background ignore SIGINT and SIGQUIT, and so would it."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
