from __future__ import annotations

import numpy as np
import pytest

from stackrt.keras.steps import Stretch, order, stretches


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 33, [(0, 11, 3)]),
        (0, 30, [(0, 11, 2), (22, 8, 1)]),
        (0, 5, [(0, 5, 1)]),
        (5, 33, [(5, 6, 1), (11, 11, 2)]),
        (5, 30, [(5, 6, 1), (11, 11, 1), (22, 8, 1)]),
        (5, 9, [(5, 4, 1)]),
        (11, 22, [(11, 11, 1)]),
        (33, 33, []),
    ],
)
def test_epochs_end_where_they_would_without_a_break(
    start: int, end: int, expected: list[tuple[int, int, int]]
) -> None:
    assert stretches(start, end, 11) == [Stretch(*one) for one in expected]


def test_a_run_that_goes_on_reads_on() -> None:
    whole = order(3, 0, 30, 128, 1408)
    assert whole.shape == (30, 128)
    assert np.array_equal(order(3, 17, 30, 128, 1408), whole[17:])
    assert not np.array_equal(order(4, 0, 30, 128, 1408), whole)


def test_each_epoch_has_each_picture_once() -> None:
    read = order(0, 0, 30, 100, 750).reshape(-1)
    for epoch in range(4):
        assert sorted(read[epoch * 750 : (epoch + 1) * 750]) == list(range(750))


def test_the_other_trainers_take_the_same_pictures() -> None:
    from stackrt.pictures import batches, options

    o = options.read(["--seed", "7"], options.parser(""), options.Options)
    mine = order(7, 0, 30, o.batch_size, 1408)
    for step in (0, 10, 11, 29):
        assert np.array_equal(mine[step], batches.batch(o, step, 0, 1, 1408))
