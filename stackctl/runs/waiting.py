"""Waiting for the end of a run on a cluster, also where that does not answer for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from stackctl.engines.kube import ApiError
from stackctl.runs import observe, watch
from stackctl.runs.handle import Tell
from stackctl.runs.observe import View
from stackctl.runs.states import ENDED
from stackctl.runs.watch import LONGEST_LOOK, LOOK_SECONDS, Run

LOST_SECONDS = 600.0
"""For which `wait` asks a cluster that does not answer: a control plane is upgraded, a laptop sleeps."""


def wait(run: Run, seen: Callable[[View], None], sleep: Callable[[float], None], tell: Tell) -> View:
    """Wait for the end of a run; a cluster that does not answer meanwhile is asked again for `LOST_SECONDS`.

    Args:
        seen: Is called at each look.
        sleep: Waits so many seconds, or raises what ends the waiting.
        tell: Is given what a person should know meanwhile.

    Raises:
        JobFailed: It was removed meanwhile.
        ApiError: The cluster refuses to tell, or has not answered for long.
    """
    before, pause, lost = "", LOOK_SECONDS, 0.0
    while True:
        try:
            now, lost = watch.view(run), 0.0
        except ApiError as error:
            begun = lost or time.monotonic()
            if 0 < error.status < 500 or time.monotonic() - begun > LOST_SECONDS:
                raise
            if not lost:
                tell(f"note: {error.message}; asking again for {LOST_SECONDS / 60:g} minutes")
            lost = begun
            sleep(LOOK_SECONDS)
            continue
        seen(now)
        if now.state in ENDED:
            return now
        if observe.line(now) != before:
            before, pause = observe.line(now), LOOK_SECONDS
        sleep(pause)
        pause = min(pause * 1.5, LONGEST_LOOK)
