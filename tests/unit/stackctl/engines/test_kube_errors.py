"""What can go wrong between us and an API server."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import urllib3

from stackctl.engines.kube_errors import ApiError, refused, unreachable, where_allowed

HOST, PROXY = "https://there", "http://proxy:1"


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (urllib3.exceptions.NewConnectionError(None, "[Errno 111] Connection refused"), "Connection refused"),  # type: ignore[arg-type]
        (OSError("Tunnel connection failed: 407 Proxy Authentication Required"), "407 Proxy Authentication Required"),
        (urllib3.exceptions.ConnectTimeoutError("timed out"), "no answer in time"),
    ],
)
def test_a_dead_proxy_is_not_called_the_cluster(cause: Exception, said: str) -> None:
    error = unreachable(HOST, PROXY, urllib3.exceptions.ProxyError("Unable to connect to proxy", cause))
    assert error.message == f"the proxy http://proxy:1 on the way to https://there does not let us through: {said}"


def test_a_cluster_that_does_not_answer_and_one_that_is_another_are_told_apart() -> None:
    assert unreachable(HOST, "", OSError("x")).message == "the cluster at https://there does not answer: x"
    error = unreachable(HOST, "", urllib3.exceptions.SSLError("[SSL] certificate verify failed: IP address mismatch"))
    assert error.message == "there is no safe connection to the cluster at https://there: IP address mismatch"
    assert "tls-server-name" in error.hint
    assert (error.status, error.exit_code) == (0, 3)


@pytest.mark.parametrize(
    ("number", "message", "said", "status", "exit_code"),
    [
        (401, "Unauthorized", "the cluster does not accept your credentials", 401, 3),
        (403, 'jobs is forbidden: User "a"', 'the cluster does not allow this: jobs is forbidden: User "a"', 403, 3),
        (400, 'admission webhook "w" denied', 'the cluster does not admit this: admission webhook "w" denied', 403, 3),
        (422, "spec is invalid", "the cluster refuses this: spec is invalid", 422, 2),
        (503, "", "the cluster at https://there is in trouble: HTTP 503", 503, 3),
        (429, "slow down", "the cluster at https://there is in trouble: slow down", 429, 3),
    ],
)
def test_a_refusal_says_what_is_wrong(number: int, message: str, said: str, status: int, exit_code: int) -> None:
    error = refused(HOST, number, json.dumps({"kind": "Status", "message": message}).encode())
    assert (error.message, error.status, error.exit_code) == (said, status, exit_code)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html>\n bad  gateway</html>", "<html> bad gateway</html>"),
        (b"[" * 100_000, "[" * 200),
        (b'"text"', '"text"'),
        (b"", "HTTP 502"),
    ],
)
def test_what_no_api_server_answers_is_quoted(data: bytes, said: str) -> None:
    assert refused(HOST, 502, data).message == f"the cluster at https://there is in trouble: {said}"


def test_what_a_person_may_not_ask_is_not_known() -> None:
    with where_allowed():
        raise ApiError("no", status=403)
    with suppress(ApiError), where_allowed():
        raise ApiError("gone", status=404)
