"""The suite's own test: every planted fault is found, and every healthy case passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.integration.checks import faults
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import Case

FAULTS, HEALTHY = faults.load()


def cases(those: Sequence[Case]) -> list[Any]:
    return [
        pytest.param(case, case.image, id=f"{case.check}: {case.what}", marks=pytest.mark.needs(*case.needs))
        for case in those
    ]


@pytest.mark.parametrize(("case", "reported"), cases(FAULTS))
def test_a_planted_fault_is_found(case: Case, reported: str, bench: Bench) -> None:
    result = case.function(bench)
    assert result.status in ("fail", "warn"), result
    assert result.found
    assert result.expected
    assert result.todo
    assert "it broke off" not in result.found, result


@pytest.mark.parametrize(("case", "reported"), cases(HEALTHY))
def test_a_healthy_case_passes(case: Case, reported: str, bench: Bench) -> None:
    result = case.function(bench)
    assert result.status == "pass", result
