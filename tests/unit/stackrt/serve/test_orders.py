from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackrt.serve import orders


def test_an_order_and_what_came_of_it_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "next"
    assert orders.given(file) is None
    order = orders.give(file, ["/out/second", "--name", "words"])
    assert orders.given(file) == order
    assert orders.answered(file, order) is None
    orders.answer(file, order, "loading")
    orders.answer(file, order, "refused", "it is damaged")
    assert orders.answered(file, order) == orders.Answer(order.id, "refused", "it is damaged")
    later = orders.give(file, ["/out/third"])
    assert orders.answered(file, later) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next", "next.answer"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": 3, "words": []}', '{"id": "a", "words": "b"}', "[" * 100_000])
def test_what_is_no_order_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "next").write_text(text)
    assert orders.given(tmp_path / "next") is None


def test_an_answer_of_another_kind_is_none(tmp_path: Path) -> None:
    order = orders.give(tmp_path / "next", ["a"])
    (tmp_path / "next.answer").write_text(json.dumps({"id": order.id, "state": "new"}))
    assert orders.answered(tmp_path / "next", order) is None
