"""How long somebody waits: time is counted from the start, and the end is an error that says so."""

import time

import pytest

from stackctl.errors import StackError, StillRunning
from stackctl.runs.patience import Patience


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
