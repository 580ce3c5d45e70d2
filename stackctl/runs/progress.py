"""Telling a person who waits how a run fares: a line a change, and once nothing changes for a while, why."""

from __future__ import annotations

import time
from collections.abc import Callable

from stackctl.runs import explain, observe, watch
from stackctl.runs.observe import View
from stackctl.runs.states import ENDED, WAITS
from stackctl.runs.watch import Run

QUIET_SECONDS, LONGEST_QUIET = 3.0, 60.0
"""How long a run may wait before the cluster is asked why, growing while the answer stays the same."""

_NO_NEWS = ("starting", "running")


class Progress:
    """What was told of a run so far."""

    def __init__(self, run: Run, tell: Callable[[str], None]) -> None:
        self._run, self._tell = run, tell
        self._news = self._why = ""
        self._ask_at, self._quiet = 0.0, QUIET_SECONDS

    def look(self, now: View) -> None:
        """Take note of how the run is, and tell what is new. Its end is for others to tell."""
        if now.state in ENDED:
            return
        line = observe.line(now)
        news = line if now.state in WAITS else f"{now.state} {now.attempt}"  # that a node is done is none
        if news != self._news:
            self._news, self._quiet = news, QUIET_SECONDS
            self._tell(line)
        elif now.state in WAITS and time.monotonic() > self._ask_at:
            why = explain.explain(watch.facts(self._run))
            if why.cause not in _NO_NEWS and why.sentence != self._why:
                self._why = why.sentence
                self._tell(why.text)
            self._quiet = min(2 * self._quiet, LONGEST_QUIET)
        else:
            return
        self._ask_at = time.monotonic() + self._quiet
