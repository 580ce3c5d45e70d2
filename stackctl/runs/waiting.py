"""Waiting for the end of a run on a cluster, also where that does not answer for a while."""

from __future__ import annotations

from collections.abc import Callable

from stackctl.engines.kube_errors import ApiError
from stackctl.runs import observe, watch
from stackctl.runs.handle import Tell
from stackctl.runs.observe import View
from stackctl.runs.outage import Outage
from stackctl.runs.states import ENDED
from stackctl.runs.watch import LONGEST_LOOK, LOOK_SECONDS, Run


def wait(run: Run, seen: Callable[[View], None], sleep: Callable[[float], None], tell: Tell) -> View:
    """Wait for the end of a run; a cluster that does not answer meanwhile is asked again (`Outage`).

    Args:
        seen: Is called at each look.
        sleep: Waits so many seconds, or raises what ends the waiting.
        tell: Is given what a person should know meanwhile.

    Raises:
        JobFailed: It was removed meanwhile.
        ApiError: The cluster refuses to tell, or has not answered for long.
    """
    before, pause, outage = "", LOOK_SECONDS, Outage(tell)
    while True:
        try:
            now = watch.view(run)
        except ApiError as error:
            outage.bear(error)
            sleep(LOOK_SECONDS)
            continue
        outage.over()
        seen(now)
        if now.state in ENDED:
            return now
        if observe.line(now) != before:
            before, pause = observe.line(now), LOOK_SECONDS
        sleep(pause)
        pause = min(pause * 1.5, LONGEST_LOOK)
