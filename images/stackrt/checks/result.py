"""What a check found."""

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Result:
    """What a check found. A warning or a failure also says what was expected and what to do."""

    status: Status
    found: str
    """One sentence; for a skip, its reason."""
    expected: str = ""
    todo: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured: JSON values, the unit in the name (`seconds`, `bus_gb_per_s`)."""


def passed(found: str, **figures: Any) -> Result:
    """All is as it should be."""
    return Result("pass", found, figures=figures)


def warned(found: str, *, expected: str, todo: str, **figures: Any) -> Result:
    """Training works, but not as well as it should."""
    return Result("warn", found, expected, todo, figures)


def failed(found: str, *, expected: str, todo: str, **figures: Any) -> Result:
    """Training would fail, or its results could not be trusted."""
    return Result("fail", found, expected, todo, figures)


def skipped(reason: str) -> Result:
    """The check could not be made here."""
    return Result("skip", reason)
