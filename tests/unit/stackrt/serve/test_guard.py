from __future__ import annotations

import io
import sys

import pytest

from stackrt.serve import guard


class Full(io.StringIO):
    """As a file on a full disk."""

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Full()
    monkeypatch.setattr(sys, "stdout", full)
    guard.say("request", path="/metrics")
    assert '"path": "/metrics"' in full.getvalue()
