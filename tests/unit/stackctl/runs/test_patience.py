"""How long somebody waits: time is counted from the start, and the end is an error that says so."""

import math
import signal
import time

import pytest

from stackctl.errors import InvalidInput, StackError, StillRunning
from stackctl.runs.patience import Patience, bounded


def test_time_is_over_once_it_is() -> None:
    patience = Patience("mine", 0.05)
    patience.see()
    begun = time.monotonic()
    patience.sleep(60)
    assert time.monotonic() - begun < 5
    with pytest.raises(
        TimeoutError, match=r"mine: goes on still, after 0\.05 s\n  see how it fares: stackctl status mine"
    ) as found:
        patience.sleep(60)
    assert isinstance(found.value, StackError)
    assert isinstance(found.value, StillRunning)
    assert found.value.exit_code == 124


def test_without_an_end_it_only_sleeps() -> None:
    patience = Patience("mine", None)
    patience.see()
    patience.sleep(0)


def test_whatever_is_waited_for_is_left_in_time() -> None:
    before = signal.getsignal(signal.SIGALRM)
    begun = time.monotonic()
    with pytest.raises(StillRunning), bounded("mine", 0.05):
        time.sleep(60)
    assert time.monotonic() - begun < 5
    with bounded("mine", 60):
        pass
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]) == (before, 0)
    with bounded("mine", None):
        pass
    for wrong in (math.nan, math.inf, -1):
        with pytest.raises(InvalidInput, match="must be a number of seconds"), bounded("mine", wrong):
            pass
