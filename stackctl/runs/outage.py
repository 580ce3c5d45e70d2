"""A cluster that does not answer for a while, as whoever follows a run there meets it."""

from __future__ import annotations

import time

from stackctl.engines.kube_errors import ApiError
from stackctl.runs.handle import Tell

LOST_SECONDS = 600.0
"""For which a cluster that does not answer is asked again: a control plane is upgraded, a laptop sleeps."""

_TOO_MANY_REQUESTS = 429


class Outage:
    """What a cluster that does not answer is given: `LOST_SECONDS`, and again as many once it has answered.

    Args:
        tell: Is given what a person should know, once for each outage.
    """

    def __init__(self, tell: Tell = lambda _: None) -> None:
        self._tell = tell
        self._since: float | None = None

    def over(self) -> None:
        """It has answered."""
        self._since = None

    def bear(self, error: ApiError) -> None:
        """Take note of a failed request; raises it where it is a refusal, or the last of too long an outage."""
        now = time.monotonic()
        refused = 0 < error.status < 500 and error.status != _TOO_MANY_REQUESTS
        if refused or (self._since is not None and now - self._since > LOST_SECONDS):
            raise error
        if self._since is None:
            self._since = now
            self._tell(f"note: {error.message}; asking again for {LOST_SECONDS / 60:g} minutes")
