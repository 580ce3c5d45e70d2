"""Commands that are called in the tests' own process keep their runs where the test does, and not with the person's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run store of the test's own."""
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
