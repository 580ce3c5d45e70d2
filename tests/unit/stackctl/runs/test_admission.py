"""Admission's rules, on the table that tests/cluster/test_admission.py holds against a real API server."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from stackctl.jobs.claim_reader import AMOUNTS
from stackctl.runs import admission
from stackctl.runs.admission import judge, judge_objects
from stackctl.runs.bounds import LimitRange, PodSpec, Quota
from tests.support.admission_cases import CASES, Case, shape

KINDS = {
    "Job": "jobs.batch",
    "Secret": "secrets",
    "Service": "services",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a limit range as the API server keeps it: with what it derives from bounds."""
    if row["type"] != "Container":
        return row
    default = {**row.get("max", {}), **row.get("default", {})}
    request = {**row.get("min", {}), **default, **row.get("defaultRequest", {})}
    return {**row, "default": default, "defaultRequest": request}


def spec(case: Case) -> PodSpec:
    pod = msgspec.convert(case.manifests("team")[0]["spec"]["template"]["spec"], PodSpec)
    return msgspec.structs.replace(pod, overhead=case.overhead)


def used(case: Case) -> dict[str, str]:
    if not case.there:
        return {}
    pod = msgspec.convert({"containers": [{"resources": case.there}]}, PodSpec)
    return {key: str(amount) for key, amount in admission.usage(admission.filled(pod, [])).items()}


@pytest.mark.parametrize("name", CASES)
def test_admission_is_foreseen(name: str) -> None:
    case = CASES[name]
    ranges = [LimitRange(spec=msgspec.convert({"limits": [*map(stored, case.ranges)]}, type(LimitRange().spec)))]
    quotas = [
        msgspec.convert({"metadata": {"name": f"q{n}"}, "spec": row, "status": {"used": used(case)}}, Quota)
        for n, row in enumerate(case.quotas)
    ]
    kinds = Counter(KINDS[manifest["kind"]] for manifest in case.manifests("team"))
    found = judge(spec(case), ranges, quotas) + judge_objects(kinds, quotas)
    assert shape(found) == (case.refused, tuple(sorted(case.over))), found


FITTED = {
    "none": (),
    "less": ({"type": "Container", "max": {"cpu": "500m", "memory": "128Mi"}},),
    "more": ({"type": "Container", "min": {"memory": "1Gi", "cpu": "2"}},),
    "a ratio": ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},),
    "the pod as a whole": (
        {"type": "Pod", "max": {"cpu": "200m", "ephemeral-storage": "1Gi"}, "min": {"memory": "1G"}},
    ),
    "both": ({"type": "Container", "max": {"cpu": "300m"}}, {"type": "Pod", "maxLimitRequestRatio": {"cpu": "1"}}),
}


@pytest.mark.parametrize("name", FITTED)
def test_amounts_of_our_own_are_put_within_limit_ranges(name: str) -> None:
    ranges = [msgspec.convert({"spec": {"limits": [stored(row)]}}, LimitRange) for row in FITTED[name]]
    amounts = admission.fitted(AMOUNTS, ranges)
    assert judge(msgspec.convert({"containers": [{"resources": amounts}]}, PodSpec), ranges, []) == []


def test_amounts_that_are_admitted_stay() -> None:
    assert admission.fitted(AMOUNTS, [])["limits"] == {"cpu": "1000m", "memory": str(256 << 20)}
