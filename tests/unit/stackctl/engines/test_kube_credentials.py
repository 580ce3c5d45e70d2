"""Credentials that are refused in the middle of something; no request leaves this process."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from stackctl.engines import kube
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import MissingHere


class Logins:
    """What stands in for `Login`: the n-th has the n-th token; which is in force is a matter of the test."""

    def __init__(self) -> None:
        self.made, self.valid = 0, "1"
        self.asked: Counter[str] = Counter()

    def __call__(self, _context: str) -> Any:
        self.made += 1
        token = str(self.made)

        def request(*_: Any, headers: dict[str, str], **__: Any) -> Any:
            self.asked[headers["Authorization"]] += 1
            good = headers["Authorization"] == self.valid
            answer = b'{"metadata": {"name": "a"}}' if good else b'{"message": "Unauthorized"}'
            return SimpleNamespace(
                status=200 if good else 401,
                data=answer,
                headers={},
                close=lambda: None,
                release_conn=lambda: None,
                stream=lambda *_, **__: iter([answer + b"\n"]),
            )

        return SimpleNamespace(
            host="https://there", proxy="http://proxy:1", token=lambda: token, pool=SimpleNamespace(request=request)
        )


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch) -> Logins:
    made = Logins()
    monkeypatch.setattr(kube, "login", made)
    return made


def test_refused_credentials_are_read_anew_once(logins: Logins) -> None:
    cluster = Cluster()
    assert cluster.get("Job", "a", "team")
    logins.valid = "2"
    assert cluster.get("Job", "a", "team")
    with cluster.lines("api/v1/x", {}) as lines:
        assert list(lines) == [b'{"metadata": {"name": "a"}}']
    assert (logins.made, cluster.calls) == (2, 4)
    logins.valid = "nobody"
    with pytest.raises(ApiError, match="does not accept your credentials"):
        cluster.get("Job", "a", "team")
    with pytest.raises(ApiError, match="does not accept your credentials"), cluster.lines("api/v1/x", {}):
        pass
    assert logins.made == 4, "once for each that is refused"


def test_of_many_that_are_refused_at_once_one_reads_them(logins: Logins) -> None:
    cluster = Cluster()
    logins.valid = "2"
    threads = [threading.Thread(target=cluster.get, args=("Job", "a", "team")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert logins.made == 2
    assert logins.asked["2"] == 16


def test_credentials_that_cannot_be_read_anew_are_an_error_of_the_request(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster()
    logins.valid = "2"

    def fail(_context: str) -> None:
        raise MissingHere("the kubeconfig's credentials cannot be had: gone", hint="log in again")

    monkeypatch.setattr(kube, "login", fail)
    with pytest.raises(ApiError, match="cannot be had: gone") as error:
        cluster.get("Job", "a", "team")
    assert (error.value.status, error.value.hint) == (401, "log in again")
