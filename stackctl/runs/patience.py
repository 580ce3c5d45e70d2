"""How long somebody waits for a run."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stackctl.errors import InvalidInput, StillRunning


@contextmanager
def bounded(name: str, seconds: float | None) -> Iterator[None]:
    """End the block after so many seconds, whatever it waits for; only in the main thread.

    Raises:
        StillRunning: It took longer.
    """
    if seconds is None:
        yield
        return
    if not 0 <= seconds < _LONGEST:
        raise InvalidInput("must be a number of seconds", where=f"--timeout {seconds:g}")

    def over(_number: int, _frame: object) -> None:
        raise _Over

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), AGAIN)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Over:
        raise _still_running(name, seconds) from None
    finally:
        signal.signal(signal.SIGALRM, before)


AGAIN = 1.0
"""Seconds after which it is raised once more, should it have come where Python drops errors, as in a finalizer."""


class _Over(BaseException):
    """The time is over. Neither an `OSError` nor an `Exception`: libraries take those for failures of their own."""


_LONGEST = 1e9


def _still_running(name: str, seconds: float) -> StillRunning:
    hint = f"see how it fares: stackctl status {name}"
    return StillRunning(f"goes on still, after {seconds:g} s", where=name, hint=hint)


class Patience:
    """The time for which somebody waits for a run, from now on.

    Args:
        name: The run's.
        seconds: How long; None for as long as it takes.
    """

    def __init__(self, name: str, seconds: float | None) -> None:
        self._name, self._seconds = name, seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def sleep(self, seconds: float) -> None:
        """Sleep so long, or for what is left, if that is less.

        Raises:
            StillRunning: Nothing is left.
        """
        self.see()
        left = seconds if self._end is None else self._end - time.monotonic()
        time.sleep(max(0.0, min(seconds, left)))

    def see(self) -> None:
        """See that there is time left.

        Raises:
            StillRunning: There is none.
        """
        if self._end is not None and time.monotonic() >= self._end:
            raise _still_running(self._name, self._seconds or 0)
