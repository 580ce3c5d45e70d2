"""Waiting for what a test has set in motion."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 15, otherwise: Callable[[], object] = lambda: "") -> float:
    """Wait for a condition; returns how long that took.

    Args:
        condition: Is asked again and again.
        seconds: The longest wait.
        otherwise: Tells how things stand if it does not come about.

    Raises:
        AssertionError: It has not come true in time.
    """
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"it did not come about in {seconds} s: {otherwise()}"
        time.sleep(0.02)
    return time.monotonic() - begun
