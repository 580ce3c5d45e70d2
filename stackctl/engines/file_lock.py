"""One stackctl at a time in a folder, and whether one is there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_SECONDS = 0.05
"""More than `is_held` takes."""


@contextmanager
def held(folder: Path, busy: Callable[[], None]) -> Iterator[int]:
    """Within the block no other stackctl holds this folder; the kernel lets go of it when we end, however that is.

    Gives the descriptor that holds it: a program that inherits it holds the folder, too, for as long as it lives.
    Where the file system knows no such locks (some of NFS), nothing is held.

    Args:
        busy: Called if another holds it. We wait for that one then, unless this raises.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not _taken(handle):
            busy()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether somebody holds this folder, as far as can be known."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(handle, fcntl.LOCK_SH)
    except OSError:
        return True
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        if _lock(handle, fcntl.LOCK_EX):
            return True
        time.sleep(_LOOK_SECONDS)  # it may only be looked at
        return _lock(handle, fcntl.LOCK_EX)
    except OSError:  # no locks here
        return True


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
