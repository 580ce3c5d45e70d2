"""What a rank says of its own end: the exception that it prints, or that torch's `@record` writes down.

A rank that raised may take seconds to leave (exit handlers, the process group's teardown), while its peers lose their
connections at once and leave first. The order of the ends then names the wrong one.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

HEADER = b"Traceback (most recent call last):"
LOST_PEER = re.compile(
    "closed by peer|reset by peer|Broken pipe|Connection refused|ncclRemoteError|ncclSystemError|remote process exited"
    "|DistNetworkError|DistStoreError|HorovodInternalError|Timed out waiting|Watchdog caught collective|Socket closed"
    "|UnavailableError|failed to connect to all addresses"
)
"""What frameworks say of a peer that is gone: gloo, NCCL, torch's store, Horovod, gRPC (TensorFlow)."""
BURST = 0.1
"""Seconds after an exception's first line in which the others of a long message come."""
LONGEST = 500
"""Characters of an exception in a sentence."""

_PREFIX = re.compile(rb"\[rank\d+\]: ")
"""Before each line of torch's own traceback."""
_NOISE = re.compile(rb"\s|\[[WEIF]\d|terminate called|During handling of|The above exception was|$")
"""Lines after an exception that belong to it, or that C++ prints on the way out."""


class Raised(NamedTuple):
    """An exception that ended a rank, or is about to."""

    text: str
    """As Python prints it: `ValueError: bad sample`."""
    time: float
    """Unix time of this machine."""
    echo: bool
    """Whether it, or one that led to it, tells of a peer that is gone."""


def is_echo(text: str) -> bool:
    """Tell whether what a rank said last is about a peer that is gone."""
    return LOST_PEER.search(text) is not None


class Watch:
    """Looks at a rank's lines for an exception that nothing follows; after one that was caught other output comes."""

    def __init__(self) -> None:
        self.raised: Raised | None = None
        self._inside = self._echo = False
        self._since = self._until = 0.0

    def line(self, line: bytes, now: float) -> None:
        """Take one line."""
        if self._inside or self.raised is not None or HEADER in line:
            self._look(_PREFIX.sub(b"", line, count=1), now)

    def _look(self, line: bytes, now: float) -> None:
        if line.startswith((HEADER, b"Original " + HEADER)):
            # One that is raised while another is handled, or in a worker process, is the same end.
            self._since, self._echo = (self.raised.time, self.raised.echo) if self.raised else (now, False)
            self._inside, self.raised = True, None
        elif self._inside and not line.startswith((b" ", b"\t")) and line:
            text = line.decode(errors="replace")
            self._inside, self._until = False, now + BURST
            self.raised = Raised(text[:LONGEST], self._since, self._echo or is_echo(text))
        elif self.raised is not None and now > self._until and not _NOISE.match(line):
            self.raised = None


def recorded(file: Path) -> Raised | None:
    """Read what torch's `@record` wrote (torch.distributed.elastic.multiprocessing.errors); None if nothing whole."""
    try:
        content = json.loads(file.read_bytes())["message"]
        text = content if isinstance(content, str) else str(content["message"])
        return Raised(text.partition("\n")[0][:LONGEST], file.stat().st_mtime, is_echo(json.dumps(content)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
