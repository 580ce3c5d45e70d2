"""The order that takes no memory: one to one, the same each time, and random."""

from collections import Counter
from itertools import pairwise

import pytest

from stackrt.train.permutation import Permutation


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4096, 4097])
def test_each_place_once(count: int) -> None:
    order = Permutation(count, ("seed", 3))
    assert sorted(order[position] for position in range(len(order))) == list(range(count))


def test_a_position_alone_is_enough() -> None:
    """No state, and any size: each is found without the others."""
    whole = [Permutation(5000, 1)[position] for position in range(5000)]
    assert whole == [Permutation(5000, 1)[position] for position in range(5000)]
    huge = Permutation(10**15 + 7, 1)
    assert len({huge[position] for position in range(1000)}) == 1000
    assert max(huge[position] for position in range(1000)) > 10**14


def test_seeds_give_other_orders() -> None:
    orders = {tuple(Permutation(100, (seed, epoch))[n] for n in range(100)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_it_is_random() -> None:
    """Where things go is even, and neighbours part; bounds of about four standard deviations."""
    count = 20_000
    order = Permutation(count, "a seed")
    places = [order[position] for position in range(count)]
    quarters = Counter((4 * position // count, 4 * place // count) for position, place in enumerate(places))
    assert all(abs(number - count / 16) < 150 for number in quarters.values()), quarters
    rises = sum(b > a for a, b in pairwise(places))
    assert abs(rises - count / 2) < 4 * (count / 12) ** 0.5
    assert sum(position == place for position, place in enumerate(places)) < 8


@pytest.mark.parametrize("position", [-1, 10, 10**9])
def test_outside_there_is_nothing(position: int) -> None:
    with pytest.raises(IndexError):
        Permutation(10, 0)[position]
