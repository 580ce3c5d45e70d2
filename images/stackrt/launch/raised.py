"""What a rank says of its own end: the exception that it prints, or that torch's `@record` writes down.

A rank that raised may take seconds to leave (exit handlers, the process group's teardown), while its peers lose their
connections at once and leave first. The order of the ends then names the wrong one.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from stackrt.frameworks import FRAMEWORKS

HEADER = b"Traceback (most recent call last):"
LOST_PEER = re.compile(
    "|".join(
        [
            "closed by peer|reset by peer|Broken pipe|Connection refused|Timed out waiting",
            "ncclRemoteError|ncclSystemError|remote process exited",
            *(framework.lost_peer for framework in FRAMEWORKS.values()),
        ]
    )
)
"""What is said of a peer that is gone: by gloo, by NCCL, by each framework."""
BURST = 0.1
"""Seconds after an exception's first line in which the others of a long message come."""
LONGEST = 500
"""Characters of an exception in a sentence."""

_HARMLESS = (b"Exception ignored in", b"Exception in thread")
"""Lines before a traceback that ends no rank."""
_BAR = re.compile(rb"%\||(it|s)/(s|it)")
"""In a progress bar: an unfinished one may stand before a header."""
_CONTROL = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07)|[\x00-\x1f\x7f]")
"""A terminal's sequences, and what cannot be printed."""
_PREFIX = re.compile(rb"\[rank\d+\]: ")
"""Before each line of torch's own traceback."""
_NOISE = re.compile(
    rb"\s|\[[WEIF]\d|terminate called|Exception ignored in|During handling of|The above exception was|$"
)
"""Lines after an exception that belong to it, or that C++ prints on the way out."""


class Raised(NamedTuple):
    """An exception that ended a rank, or is about to."""

    text: str
    """As Python prints it: `ValueError: bad sample`."""
    time: float
    """Unix time of this machine."""
    echo: bool
    """Whether it, or one that led to it, tells of a peer that is gone."""
    recorded: bool = False
    """Whether torch's `@record` wrote it down: then nobody caught it."""


def is_echo(text: str) -> bool:
    """Tell whether what a rank said last is about a peer that is gone."""
    return LOST_PEER.search(text) is not None


class Watch:
    """Looks at a rank's lines for an exception that nothing follows; after one that was caught other output comes."""

    def __init__(self) -> None:
        self.raised: Raised | None = None
        self._inside = self._echo = self._harmless = self._passed_over = False
        self._since = self._until = 0.0

    def line(self, line: bytes, now: float) -> None:
        """Take one line."""
        if self._inside or self.raised is not None or HEADER in line:
            self._look(_PREFIX.sub(b"", line, count=1), now)
        self._harmless = line.startswith(_HARMLESS)

    def _look(self, line: bytes, now: float) -> None:
        if _is_header(line):
            self._inside, self._passed_over = True, self._harmless
            if not self._harmless:
                # One that is raised while another is handled, or in a worker process, is the same end.
                self._since, self._echo = (self.raised.time, self.raised.echo) if self.raised else (now, False)
                self.raised = None
        elif self._inside and not line.startswith((b" ", b"\t")) and line:
            text = shown(line.decode(errors="replace"))
            self._inside, self._until = False, now + BURST
            if not self._passed_over:
                self.raised = Raised(text[:LONGEST], self._since, self._echo or is_echo(text))
        elif not self._inside and self.raised is not None and now > self._until and not _NOISE.match(line):
            self.raised = None


def _is_header(line: bytes) -> bool:
    before, header, after = line.partition(HEADER)
    return bool(header) and not after.strip() and (before in (b"", b"Original ") or _BAR.search(before) is not None)


def shown(text: str) -> str:
    """Return a text without what would move a terminal's cursor or change its colours."""
    return _CONTROL.sub("", text)


def recorded(file: Path) -> Raised | None:
    """Read what torch's `@record` wrote (torch.distributed.elastic.multiprocessing.errors); None if nothing whole."""
    try:
        content = json.loads(file.read_bytes())["message"]
        text = content if isinstance(content, str) else str(content["message"])
        line = shown(text.partition("\n")[0])[:LONGEST]
        return Raised(line, file.stat().st_mtime, is_echo(json.dumps(content)), recorded=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
