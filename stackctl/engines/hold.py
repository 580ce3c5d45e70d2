"""One stackctl at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Within the block no other stackctl holds this folder; the kernel lets go of it when we end, however that is.

    Where the file system knows no such locks (some of NFS), nothing is held.

    Args:
        busy: Called if another holds it. We wait for that one then, unless this raises.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy()
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(handle)
