from __future__ import annotations

import pytest

from stackctl.engines.kube_errors import ApiError
from stackctl.runs.outage import LOST_SECONDS, Outage

LOST = ApiError("the cluster at x does not answer: refused")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    ticks = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: ticks[0])
    return ticks


def test_an_outage_is_told_once_and_borne_for_a_while(now: list[float]) -> None:
    said: list[str] = []
    outage = Outage(said.append)
    for now[0] in (0.0, 10.0, LOST_SECONDS):
        outage.bear(LOST)
    assert said == ["note: the cluster at x does not answer: refused; asking again for 10 minutes"]
    now[0] += 1
    with pytest.raises(ApiError, match="refused"):
        outage.bear(LOST)


def test_one_that_has_answered_is_given_as_long_again(now: list[float]) -> None:
    said: list[str] = []
    outage = Outage(said.append)
    for now[0] in (0.0, 500.0, 1000.0):
        outage.bear(LOST)
        outage.over()
    assert len(said) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_cluster_in_trouble_may_get_over_it(status: int) -> None:
    Outage().bear(ApiError("in trouble", status=status))


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_final(status: int) -> None:
    with pytest.raises(ApiError, match="no"):
        Outage().bear(ApiError("no", status=status))
