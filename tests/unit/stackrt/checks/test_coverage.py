"""No check without a planted fault that it finds, and a healthy case in which it passes."""

from stackrt.checks import registry
from tests.integration.checks import faults


def test_every_check_has_a_planted_fault_and_a_healthy_case() -> None:
    planted, healthy = faults.load()
    names = set(registry.load())
    assert {case.check for case in planted} == names
    assert {case.check for case in healthy} == names


def test_every_fault_is_named_once() -> None:
    planted, _ = faults.load()
    named = [(case.check, case.what) for case in planted]
    assert len(named) == len(set(named))
