"""The suite's loop over the descriptors of its checks."""

from __future__ import annotations

import os
import selectors
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from stackrt.checks import runner
from stackrt.checks.result import passed


class WatchFirst(selectors.DefaultSelector):
    """Tells of what was opened last first; the kernel promises no order."""

    def select(self, timeout: float | None = None) -> Any:
        return sorted(super().select(timeout), key=lambda row: -row[0].fd)


class Ended:
    """A check that has ended: of its three descriptors all have something to say."""

    def __init__(self) -> None:
        self.check, self.started = Mock(), 1.0
        self.check.name = "lock-match"
        (self.report, report), (self.output, output), (self.watch, watch) = os.pipe(), os.pipe(), os.pipe()
        for end in (report, output, watch):
            os.close(end)

    def read(self, pipe: int) -> bool:
        return bool(os.read(pipe, 1))

    def end(self) -> Any:
        for descriptor in (self.report, self.output, self.watch):
            os.close(descriptor)
        return passed("well"), 1.0, 0.5, []


def test_a_check_whose_end_is_told_before_its_last_words_is_read_once(tmp_path: Path) -> None:
    started: Any = Ended()
    running, rows = {started.watch: started}, list[runner.Row]()
    with WatchFirst() as selector:
        for source in (started.watch, started.report, started.output):
            selector.register(source, selectors.EVENT_READ, started)
        runner._look(selector, running, Mock(scratch=tmp_path), rows.append)
        assert not selector.get_map()
    assert [row.result.found for row in rows] == ["well"]
    assert running == {}
