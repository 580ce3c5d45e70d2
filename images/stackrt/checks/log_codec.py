"""A report as lines of a log: short ones, since logs cut long lines, and compressed, since logs are rotated."""

import base64
import json
import zlib
from collections.abc import Iterator
from typing import Any

MARK = "stackrt.checks.report"
WIDTH = 4_000


def pack(report: dict[str, Any]) -> Iterator[str]:
    """The lines of a report: the mark, which line of how many it is, and its part."""
    data = base64.b64encode(zlib.compress(json.dumps(report).encode(), level=9)).decode()
    parts = [data[start : start + WIDTH] for start in range(0, len(data), WIDTH)]
    for number, part in enumerate(parts, 1):
        yield f"{MARK} {number}/{len(parts)} {part}"


class Unpacked:
    """A report from the lines of a log, among which others may stand."""

    def __init__(self) -> None:
        self._parts: dict[int, str] = {}
        self._all = 0

    def take(self, line: str) -> bool:
        """Tell whether a line, from the mark on, is of the report, and keep its part."""
        mark, number, part = (*line.split(" ", 2), "", "")[:3]
        here, _, whole = number.partition("/")
        if mark != MARK or not (here.isdigit() and whole.isdigit()):
            return False
        if here == "1":
            self._parts.clear()  # of an attempt before
        self._parts[int(here)] = part
        self._all = int(whole)
        return True

    @property
    def text(self) -> str:
        """The report as JSON; empty while it is not whole."""
        if not self._all or len(self._parts) < self._all:
            return ""
        data = base64.b64decode("".join(self._parts[number] for number in sorted(self._parts)))
        return zlib.decompress(data).decode()
