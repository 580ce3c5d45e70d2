"""For each check of the suite: what makes it fail, and a healthy case. One file a subject, as the checks have.

    @fault("lock-match", "a package of another version")
    def another_version(bench: Bench) -> Result:
        return bench.run("lock-match", bench.context(…))

    @healthy("gpu-health")
    def sound(bench: Bench) -> Result:
        return on(bench, FakeDriver(), "gpu-health")

    healthy_in("pytorch", "lock-match", "pip-check")

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
    """What it needs of the machine, in the words of tests/machine.py."""
    image: str = ""
    """The image whose whole report it looks into, if it does."""


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


def healthy_in(image: str, *checks: str) -> None:
    """Register that checks pass in a built image, `pytorch` or `pytorch:cuda`."""
    needs = ("docker", "cuda-images") if image.endswith(":cuda") else ("docker",)
    for check in checks:

        def look(bench: Bench, check: str = check) -> Result:
            return bench.report(image)[check]

        HEALTHY.append(Case(check, f"in {image}", look, needs, image))


def load() -> tuple[list[Case], list[Case]]:
    """Import every subject's file; (faults, healthy cases)."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"{__name__}.{path.stem}")
    return FAULTS, HEALTHY
