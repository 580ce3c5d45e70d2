"""The log of a pod as lines, each once, also over connections that break."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, BrokenOff, Silent
from stackctl.engines.kube_paths import address
from stackctl.jobs.kubernetes import CONTAINER
from stackctl.runs.outage import Outage

_RANK = re.compile(rb"\[ *([0-9]+)\] ")

PAUSE, MOST_BREAKS, MOST_LAST_BREAKS = 1.0, 60, 2
"""Seconds before a stream is taken up again, and how often in a row without a new line while the pod's machine does not
answer: while its container runs, and once nothing more comes. For a cluster that does not answer, see `Outage`."""

HELD_SECONDS = 10.0
"""A stream that was open for longer broke for being idle, as proxies do it, whatever it carried."""

_KUBELET = re.compile(rb"unable to retrieve container logs for |failed (to|with err) |rpc error: ")
"""How the kubelet's own words begin, where it writes in a log's place why there is none; a log's lines have times."""

OVERLAP = 2
"""Seconds of the log that are asked for again: the API server knows whole seconds only."""


class Unreadable(ApiError):
    """The kubelet cannot read the log; says why in its own words."""


def rank_of(line: bytes) -> int | None:
    """The rank that printed a line; None for the launcher's own."""
    found = _RANK.match(line)
    return int(found[1]) if found else None


def without_prefix(line: bytes) -> bytes:
    """A rank's line as it was printed."""
    return _RANK.sub(b"", line, count=1)


def read(
    cluster: Cluster, namespace: str, pod: str, *, follow: bool = False, ended: Callable[[], bool] = lambda: True
) -> Iterator[bytes]:
    """Lines of a pod's log, from its start.

    Args:
        follow: Go on as it grows, until the container has ended.
        ended: Whether the container has ended, as far as is known; asked before each try.

    Raises:
        ApiError: The log cannot be had; with status 500 and above, since the pod's machine does not answer.
    """
    seen = _Seen()
    breaks, outage = 0, Outage()
    while True:
        last = not follow or ended()
        query = {"container": CONTAINER, "timestamps": "true", **({} if last else {"follow": "true"}), **seen.since()}
        opened = None
        try:
            with cluster.lines(address("Pod", namespace, pod, "log"), query) as rows:
                opened = time.monotonic()
                for row in seen.new(rows):
                    breaks = 0
                    outage.over()
                    yield row
            if last:
                return
        except Silent:
            breaks = breaks + 1 if last else 0  # while it runs, it may print nothing for hours
            if breaks > MOST_LAST_BREAKS:
                raise
        except BrokenOff as error:
            if opened is not None and time.monotonic() - opened > HELD_SECONDS:
                outage.over()
            outage.bear(error)
        except ApiError as error:
            outage.over()
            if error.status == 404 or (error.status == 400 and last):
                return  # the pod has gone, or never started
            most = MOST_LAST_BREAKS if last else MOST_BREAKS
            if error.status not in (400, 429, 500, 502, 503, 504) or breaks >= most:
                raise
            breaks += 1
        time.sleep(PAUSE)


class _Seen:
    """What was read already: enough to take a log up again without loss or repetition."""

    def __init__(self) -> None:
        self._recent: deque[tuple[datetime, bytes]] = deque()
        self._newest: datetime | None = None

    def since(self) -> dict[str, str]:
        """The query for the rest of the log, with an overlap."""
        if self._newest is None:
            return {}
        return {"sinceTime": f"{self._newest - timedelta(seconds=OVERLAP):%Y-%m-%dT%H:%M:%SZ}"}

    def new(self, rows: Iterator[bytes]) -> Iterator[bytes]:
        """The lines that were not read before, without their times."""
        known = Counter(row for _, row in self._recent)
        for row in rows:
            if known[row] > 0:
                known[row] -= 1
                continue
            stamp, _, line = row.partition(b" ")
            when = _time(stamp)
            if when is not None:
                self._remember(when, row)
                yield line
            elif _KUBELET.match(row):
                raise Unreadable(row.decode(errors="replace"), status=502)
            elif row:  # the rest of a long line, which another stream's came between
                yield row

    def _remember(self, when: datetime, row: bytes) -> None:
        self._newest = max(when, self._newest or when)
        self._recent.append((when, row))
        # One second more than the overlap: the server cuts to whole seconds.
        while self._recent and self._recent[0][0] < self._newest - timedelta(seconds=OVERLAP + 1):
            self._recent.popleft()


def _time(stamp: bytes) -> datetime | None:
    """A time such as 2026-11-22T06:00:00.123456789Z, to the second."""
    try:
        return datetime.fromisoformat(stamp[:19].decode("ascii")).replace(tzinfo=UTC)
    except ValueError:
        return None
