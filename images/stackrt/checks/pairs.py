"""The passes that isolate a slow node: who measures with whom, and whom the figures accuse. Pure.

Pass 1 measures every node once, in pairs side by side; a node with no fast pair is a suspect. In pass 2 each suspect is
measured with a node that is known to be fast: its partner of pass 1 is cleared. Who is still slow is measured once more
in pass 3, and bad if that is slow, too.
"""

import statistics
from collections.abc import Mapping, Sequence

Pair = tuple[int, int]
SLOW = 0.6
"""Below this part of what the faster half of the pairs has, a pair is slow."""


def first_rounds(nodes: int) -> list[list[Pair]]:
    """Pass 1: neighbours side by side; with an odd number the last node has a round of its own, with node 0.

    Of three nodes all pairs are measured: else a slow node 0 would be in each of them.
    """
    if nodes == 3:
        return [[(0, 1)], [(0, 2)], [(1, 2)]]
    rounds = [[(node, node + 1) for node in range(0, nodes - 1, 2)]]
    return [*rounds, [(0, nodes - 1)]] if nodes % 2 else rounds


def slow_pairs(rates: Mapping[Pair, float]) -> set[Pair]:
    """The pairs that are much slower than the others, and those without any data. A single pair has no others."""
    return {pair for pair, rate in rates.items() if rate <= 0 or rate < least(rates)}


def least(rates: Mapping[Pair, float]) -> float:
    """What a pair needs at least: a part of what the faster half has."""
    return SLOW * statistics.median(sorted(rates.values())[len(rates) // 2 :])


def suspects(rates: Mapping[Pair, float]) -> tuple[list[int], list[int]]:
    """After pass 1: nodes without a fast pair, and the others."""
    slow = slow_pairs(rates)
    fast = {node for pair in rates if pair not in slow for node in pair}
    return sorted({node for pair in rates for node in pair} - fast), sorted(fast)


def second_rounds(suspected: Sequence[int], good: Sequence[int]) -> list[list[Pair]]:
    """Pass 2: each suspect with a good node, as many side by side as there are good ones."""
    if not good:
        return []
    return [
        list(zip(good, suspected[first : first + len(good)], strict=False))
        for first in range(0, len(suspected), len(good))
    ]


def bad(first: Mapping[Pair, float], *later: Mapping[Pair, float]) -> list[int]:
    """The suspects that were slow with a good node each time: other work slows a measurement for a moment only."""
    suspected, _ = suspects(first)
    seen = {node: [rate for rates in later for pair, rate in rates.items() if node in pair] for node in suspected}
    return sorted(node for node, rates in seen.items() if rates and max(rates) < least(first))
