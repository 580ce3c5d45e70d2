"""Simulated clusters: whichever node is slow, two passes name it and nobody else."""

import pytest

from stackrt.checks import pairs
from stackrt.checks.pairs import Pair


def measure(rounds: list[list[Pair]], slow: set[int]) -> dict[Pair, float]:
    return {pair: 1.0 if slow.intersection(pair) else 10.0 + pair[0] / 10 for together in rounds for pair in together}


def isolate(nodes: int, slow: set[int]) -> list[int]:
    first = measure(pairs.first_rounds(nodes), slow)
    return pairs.bad(first, measure(pairs.second_rounds(*pairs.suspects(first)), slow))


@pytest.mark.parametrize("nodes", range(2, 10))
def test_each_node_is_measured_in_pass_1_and_none_twice_at_once(nodes: int) -> None:
    rounds = pairs.first_rounds(nodes)
    assert {node for together in rounds for pair in together for node in pair} == set(range(nodes))
    for together in rounds:
        members = [node for pair in together for node in pair]
        assert len(members) == len(set(members))


@pytest.mark.parametrize("nodes", range(3, 10))
def test_one_slow_node_is_named_and_its_partner_is_not(nodes: int) -> None:
    for node in range(nodes):
        assert isolate(nodes, {node}) == [node]


@pytest.mark.parametrize("slow", [{0, 1}, {1, 2}, {0, 7}, {2, 3, 5}])
def test_several_slow_nodes_are_named(slow: set[int]) -> None:
    assert isolate(10, slow) == sorted(slow)


def test_a_healthy_cluster_has_no_suspect() -> None:
    assert pairs.suspects(measure(pairs.first_rounds(8), set())) == ([], list(range(8)))
    assert isolate(8, set()) == []


def test_who_is_slow_for_a_moment_is_cleared_by_another_measurement() -> None:
    first = {(0, 1): 9.0, (2, 3): 1.0}
    second = {(0, 2): 1.0, (1, 3): 1.0}
    assert pairs.bad(first, second) == [2, 3]
    assert pairs.bad(first, second, {(0, 2): 1.0, (1, 3): 9.0}) == [2]
    assert pairs.bad(first, {(0, 2): 1.0, (1, 3): 9.0}) == [2]


def test_second_rounds_use_each_good_node_once_a_round() -> None:
    assert pairs.second_rounds([4, 5, 6], [0, 1]) == [[(0, 4), (1, 5)], [(0, 6)]]
    assert pairs.second_rounds([4, 5], []) == []


def test_a_pair_without_data_is_slow_even_if_there_is_no_other() -> None:
    assert pairs.slow_pairs({(0, 1): 0.0}) == {(0, 1)}
    assert pairs.slow_pairs({(0, 1): 3.0}) == set()
