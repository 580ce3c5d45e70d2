"""Waiting for what a test has set in motion."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_PAUSE = 0.5
"""Seconds between two looks, at the most."""


def until(condition: Callable[[], object], seconds: float = 15, otherwise: Callable[[], object] = lambda: "") -> float:
    """Wait for a condition; returns how long that took.

    Args:
        condition: Is asked again and again.
        seconds: The longest wait.
        otherwise: Tells how things stand if it does not come about.

    Raises:
        AssertionError: It has not come true in time.
    """
    begun = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now - begun < seconds, f"it did not come about in {seconds} s: {otherwise()}"
        # What takes a process or a request to ask is asked less often: it would slow down what is waited for.
        time.sleep(min(max(0.02, 2 * (now - asked)), LONGEST_PAUSE))
        asked = time.monotonic()
    return time.monotonic() - begun
