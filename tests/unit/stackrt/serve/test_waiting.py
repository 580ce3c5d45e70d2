from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from stackrt.serve.waiting import ClosedError, FullError, Waiting


@dataclass(eq=False)
class Item:
    size: int = 1
    since: float = field(default_factory=time.monotonic)
    gone: bool = False
    told: list[str] = field(default_factory=list)

    def expired(self) -> None:
        self.told.append("expired")


def test_all_or_none_find_room() -> None:
    waiting: Waiting[Item] = Waiting(3, 60)
    waiting.put([Item(), Item()])
    with pytest.raises(FullError):
        waiting.put([Item(), Item()])
    assert len(waiting) == 2


def test_a_batch_takes_what_fits_in_order_and_one_in_any_case() -> None:
    waiting: Waiting[Item] = Waiting(9, 60)
    items = [Item(2), Item(2), Item(9), Item(1)]
    waiting.put(items)
    assert waiting.take(5, wait=False) == items[:2]
    assert waiting.take(5, wait=False) == [items[2]]
    assert waiting.take(0, wait=False) == []
    assert waiting.take(5, wait=True) == [items[3]]


def test_who_waited_too_long_is_told_and_who_has_gone_is_forgotten() -> None:
    waiting: Waiting[Item] = Waiting(9, 10)
    late, gone, good = Item(since=time.monotonic() - 11), Item(gone=True), Item()
    waiting.put([late, gone, good])
    assert waiting.take(9, wait=False) == [good]
    assert (late.told, gone.told) == (["expired"], [])


def test_a_closed_queue_tells_all() -> None:
    waiting: Waiting[Item] = Waiting(9, 10)
    item = Item()
    waiting.put([item])
    waiting.close()
    assert item.told == ["expired"]
    with pytest.raises(ClosedError):
        waiting.put([Item()])
