from __future__ import annotations

import threading
from pathlib import Path

import pytest

from stackctl.engines.file_lock import held


def never() -> None:
    raise AssertionError("nobody holds it")


def test_who_comes_second_hears_of_it_and_waits(tmp_path: Path) -> None:
    heard, entered = threading.Event(), threading.Event()

    def second() -> None:
        with held(tmp_path, heard.set):
            entered.set()

    waiting = threading.Thread(target=second)
    with held(tmp_path, never):
        waiting.start()
        assert heard.wait(10)
        assert not entered.wait(0.1)
    waiting.join(10)
    assert entered.is_set()


def test_who_comes_second_may_refuse(tmp_path: Path) -> None:
    def refuse() -> None:
        raise InterruptedError

    with held(tmp_path, never), pytest.raises(InterruptedError), held(tmp_path, refuse):
        pass
    with held(tmp_path, never):
        pass
