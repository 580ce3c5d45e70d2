"""For each check of the suite: what makes it fail, and a healthy case. One file a subject, as the checks have.

    @fault("lock-match", "a package of another version")
    def another_version(bench: Bench) -> Result:
        return bench.run("lock-match", bench.context(…))

    @healthy("lock-match")
    def as_built(bench: Bench) -> Result:
        return bench.report("pytorch")["lock-match"]

These modules import no framework at their top: the table of docs/reference/checks.md is made from them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackrt.checks.result import Result
    from tests.integration.checks.bench import Bench

    Function = Callable[[Bench], Result]


@dataclass(frozen=True)
class Case:
    """A situation for a check."""

    check: str
    what: str
    function: Function
    needs: tuple[str, ...]
    """What it needs of the machine, in the words of tests/conftest.py."""


FAULTS: list[Case] = []
HEALTHY: list[Case] = []


def fault(check: str, what: str, *, needs: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Register what plants a fault and returns what the check then found. `what` names the fault in a few words."""

    def register(function: Function) -> Function:
        FAULTS.append(Case(check, what, function, needs))
        return function

    return register


def healthy(check: str, *, needs: tuple[str, ...] = ()) -> Callable[[Function], Function]:
    """Register a case in which the check must pass."""

    def register(function: Function) -> Function:
        HEALTHY.append(Case(check, "healthy", function, needs))
        return function

    return register


def load() -> tuple[list[Case], list[Case]]:
    """Import every subject's file; (faults, healthy cases)."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"{__name__}.{path.stem}")
    return FAULTS, HEALTHY
