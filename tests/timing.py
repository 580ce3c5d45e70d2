"""How long something takes on a machine that other work shares."""

from __future__ import annotations

import functools
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

TRIES = 5
"""One in time is enough: other work only adds."""


def slowdown() -> float:
    """How much longer something takes on this machine now than it computes: 1 if nothing else goes on."""
    before, start = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    now = os.times()
    computed = now.children_user + now.children_system - before.children_user - before.children_system
    return max(1.0, (time.monotonic() - start) / computed)


@functools.cache
def slower() -> float:
    """How much slower this machine is, alone, than the one that the bounds are of."""
    from bench.startup import PROBE, PROBE_SECONDS, WAYS, seconds

    return max(1.0, statistics.median(seconds(WAYS[PROBE]) for _ in range(9)) / PROBE_SECONDS)


def fastest(seconds: Callable[[], float], bound: float) -> float:
    """The shortest of a few times of something, as on a quiet machine; within the bound it is not tried again."""
    found = math.inf
    for _ in range(TRIES):
        if found > bound:
            found = min(found, seconds() / max(slowdown(), slower()))
    return found
