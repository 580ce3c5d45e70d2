"""How far what was written is from the original. Standard library only."""

import math
from collections.abc import Iterable


def largest(differences: Iterable[float]) -> float:
    """The largest of some differences; infinite if one of them is no number, which `max` may leave out."""
    worst = 0.0
    for one in differences:
        worst = max(worst, one) if math.isfinite(one) else math.inf
    return worst
