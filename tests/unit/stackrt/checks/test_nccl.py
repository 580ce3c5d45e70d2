"""The formulas of nccl-tests: doc/PERFORMANCE.md there."""

from __future__ import annotations

import pytest

from stackrt.checks.nccl import bus_bandwidth, bus_factor


@pytest.mark.parametrize(
    ("collective", "one", "two", "eight"),
    [
        ("all_reduce", 0, 1, 1.75),
        ("all_gather", 0, 0.5, 0.875),
        ("reduce_scatter", 0, 0.5, 0.875),
        ("all_to_all", 0, 0.5, 0.875),
        ("broadcast", 1, 1, 1),
        ("reduce", 1, 1, 1),
    ],
)
def test_factor_for_one_two_and_eight_ranks(collective: str, one: float, two: float, eight: float) -> None:
    assert [bus_factor(collective, ranks) for ranks in (1, 2, 8)] == [one, two, eight]


def test_bandwidth_is_bytes_a_second_in_units_of_10_to_the_9() -> None:
    # 16 GiB in 100 ms are 171.8 GB/s; over 8 ranks the links carry 1.75 times that.
    assert bus_bandwidth("all_reduce", 8, 2**34, 0.1) == pytest.approx(2**34 / 0.1 / 1e9 * 1.75)
    assert bus_bandwidth("all_reduce", 1, 2**34, 0.1) == 0
