"""A log of which a cluster has only the end, joined with what was kept of it while it was followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path


def first_line(path: Path) -> bytes | None:
    """The first line of a file; None if there is none."""
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    return line.rstrip(b"\n") if line else None


def joint(path: Path, there: Sequence[bytes]) -> tuple[int, int]:
    """The `overlap` of a kept log with the lines that are there still."""
    with path.open("rb") as kept:
        return overlap((line.rstrip(b"\n") for line in kept), there)


def first(path: Path, count: int) -> Iterator[bytes]:
    """So many lines of a kept log, from its start."""
    with path.open("rb") as kept:
        for line in islice(kept, count):
            yield line.rstrip(b"\n")


def append(path: Path, newer: Path) -> None:
    """Add to a kept log what a newer one has beyond it, and remove that one; where they do not meet it takes its place.

    Then the kept one may be of another pod, whose attempt has the same number.
    """
    lines = newer.read_bytes().splitlines(keepends=True)
    with path.open("rb") as kept:
        _, same = overlap(kept, lines)
    if not same:
        newer.replace(path)
        return
    with path.open("ab") as kept:
        kept.writelines(lines[same:])
    newer.unlink()


def overlap(kept: Iterable[bytes], there: Sequence[bytes]) -> tuple[int, int]:
    """How many lines were kept, and how many of the last ones are, in their order, the first ones that are there.

    The most that fit (Knuth, Morris and Pratt's search, to the end of what was kept).
    """
    shorter = _shorter(there)
    count = same = 0
    for line in kept:
        count += 1
        while same and (same == len(there) or there[same] != line):
            same = shorter[same - 1]
        if there and there[same] == line:
            same += 1
    return count, same


def _shorter(lines: Sequence[bytes]) -> list[int]:
    """For the first n lines, how many of the last of them are also the first ones, without being all of them."""
    found = [0] * len(lines)
    same = 0
    for number in range(1, len(lines)):
        while same and lines[number] != lines[same]:
            same = found[same - 1]
        if lines[number] == lines[same]:
            same += 1
        found[number] = same
    return found
