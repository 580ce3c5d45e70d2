"""Kubernetes quantities: `500m`, `8`, `64Gi`. Pure."""

from __future__ import annotations

import re

from stackctl.errors import InvalidInput

_FORM = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?")
_DECIMAL = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}
_SCALE = _DECIMAL | _BINARY


def value(text: str) -> float:
    """The number that a quantity stands for: cores, bytes or pieces.

    Raises:
        ValueError: It is none.
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(text)
    number, unit = found[1], found[2] or ""
    return float(number) * _SCALE[unit] if unit in _SCALE else float(number + unit)


def above(amount: float, bound: float) -> bool:
    """Whether an amount is more than another. Kubernetes counts exactly, and sums of tenths are not exact here."""
    return amount > bound * (1 + 1e-12)


def check(option: str, text: str, example: str) -> str:
    """Return a quantity that a person gave.

    Raises:
        InvalidInput: It is none, or not above zero.
    """
    try:
        good = value(text) > 0
    except ValueError:
        good = False
    if not good:
        raise InvalidInput("is not an amount above zero", where=f"{option} {text}", hint=f"write it as in {example}")
    return text


def show(amount: float) -> str:
    """An amount for people: bytes with a binary unit, else a plain number."""
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if amount >= _BINARY[unit]:
            return f"{amount / _BINARY[unit]:.4g}{unit}"
    return f"{amount:.4g}"


def told(name: str, amount: float) -> str:
    """An amount of a resource for people: with a unit if it is counted in bytes."""
    in_bytes = any(word in name for word in ("memory", "storage", "hugepages"))
    return show(amount) if in_bytes else f"{round(amount, 3):.12g}"
