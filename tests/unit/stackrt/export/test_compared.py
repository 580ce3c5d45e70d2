from __future__ import annotations

import math

from stackrt.export.compared import largest


def test_what_is_no_number_is_the_largest_difference_wherever_it_comes() -> None:
    assert largest([0.1, 0.3, 0.2]) == 0.3
    assert largest([]) == 0.0
    for place in range(3):
        found = [0.1, 0.3, 0.2]
        found[place] = math.nan
        assert largest(found) == math.inf
