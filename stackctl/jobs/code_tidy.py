"""What shipped code leaves on a claim, removed when nobody has use for it: sent to a pod's Python, so standard library.

What was sent lately stays, and what a run names; whoever sends a tree touches the files of it that are there already.
"""

import contextlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

UNUSED_DAYS = 30
"""What nobody has sent for so long, and no run names, goes."""

DAY = 24 * 3600
_AT_ONCE = 16


def tidy(place: Path, wanted: set[str]) -> tuple[int, int]:
    """Remove trees that nobody has use for, then files that no tree names; at most once a day, since it looks at all.

    Args:
        wanted: The trees that runs name.

    Returns:
        How many files went, and their bytes.
    """
    mark, now = place / "tidied", time.time()
    with contextlib.suppress(OSError):
        if mark.stat().st_mtime > now - DAY:
            return 0, 0
    with contextlib.suppress(OSError):  # another's
        mark.touch()
    before = now - UNUSED_DAYS * DAY
    named: set[str] = set()
    for path in place.glob("trees/*"):
        if path.suffix == ".json" and (path.stem in wanted or path.stat().st_mtime >= before):
            named |= _files(path)
        else:
            _remove(path, before)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda folder: _tidy(folder, named, before), place.glob("files/*")))
    return sum(count for count, _ in found), sum(size for _, size in found)


def _files(path: Path) -> set[str]:
    """The contents that a tree names; of a damaged one none, since nobody can use it."""
    try:
        return {row[1] for row in json.loads(path.read_bytes())["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _tidy(folder: Path, named: set[str], before: float) -> tuple[int, int]:
    sizes = [_remove(Path(entry.path), before) for entry in os.scandir(folder) if entry.name not in named]
    gone = [size for size in sizes if size >= 0]
    return len(gone), sum(gone)


def _remove(path: Path, before: float) -> int:
    """Remove a file that is older; returns its size, or -1 where it stays."""
    try:
        found = path.stat()
        if found.st_mtime >= before:
            return -1
        path.unlink()
    except OSError:  # another's, or gone
        return -1
    return found.st_size


def asked(folder: str) -> None:
    """Tidy up if a line on standard input says which trees runs name; print how many files went, and their bytes."""
    line = sys.stdin.buffer.readline()
    if line:
        print(json.dumps(tidy(Path(folder), set(json.loads(line)))), flush=True)
