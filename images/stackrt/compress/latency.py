"""Latencies of several models, measured by turns: what else the machine does meanwhile meets them alike."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Model = TypeVar("Model")

BATCHES = (1, 32)
WARM = 3
SECONDS = 20
"""For the passes of one model and batch; then there are fewer than was asked for."""
FEWEST = 10


def by_turns(
    models: Mapping[str, Model], seconds_of: Callable[[Model], float], repeats: int
) -> dict[str, dict[str, Any]]:
    """For each model the milliseconds that half and 99 % of its passes do not exceed, and how many passes they were."""
    took: dict[str, list[float]] = {name: [] for name in models}
    spent = dict.fromkeys(models, 0.0)
    for number in range(WARM + repeats):
        for name, model in models.items():
            if spent[name] < SECONDS or number < WARM + min(FEWEST, repeats):
                seconds = seconds_of(model)
                spent[name] += seconds
                took[name] += [seconds] if number >= WARM else []
    return {
        name: {"p50": _share(values, 0.5), "p99": _share(values, 0.99), "passes": len(values)}
        for name, values in took.items()
    }


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)
