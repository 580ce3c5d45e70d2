"""Versions to compare by."""

import re


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, the most significant first: `580.95.05` -> (580, 95, 5)."""
    return tuple(int(number) for number in re.findall(r"\d+", version))
