"""How long somebody waits: time is counted from the start, and the end is an error that says so."""

import math
import signal
import time

import pytest

from stackctl.errors import InvalidInput, StackError, StillRunning
from stackctl.runs import patience
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


def test_what_takes_it_for_a_failure_of_its_own_does_not_hold_it_up() -> None:
    """As urllib3 does: an OSError that comes while it waits for an answer is the connection's, and asked for again."""

    def request() -> None:
        while True:
            try:
                time.sleep(60)
            except Exception:
                continue

    begun = time.monotonic()
    with pytest.raises(StillRunning), bounded("mine", 0.05):
        request()
    assert time.monotonic() - begun < 5


def test_it_is_raised_again_where_it_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN", 0.05)
    dropped = []

    def drops_one() -> None:
        try:
            time.sleep(60)
        except BaseException as error:
            dropped.append(error)
        time.sleep(60)

    with pytest.raises(StillRunning), bounded("mine", 0.05):
        drops_one()
    assert len(dropped) == 1
