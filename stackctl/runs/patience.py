"""How long somebody waits for a run."""

from __future__ import annotations

import time

from stackctl.errors import StillRunning


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
            hint = f"see how it fares: stackctl status {self._name}"
            raise StillRunning(f"goes on still, after {self._seconds:g} s", where=self._name, hint=hint)
