from __future__ import annotations

from typing import Any

import pytest
from requests import ConnectionError as RequestsConnectionError

from stackctl.engines.docker_api import Host, read, reason

ALL = ["ca.pem", "cert.pem", "key.pem"]


def context(url: str, files: list[str], *, skip: bool = False, where: str = "<IN MEMORY>") -> dict[str, Any]:
    """What the client says of one."""
    endpoint = {"Host": url, "SkipTLSVerify": skip}
    material = {"docker": files} if files else {}
    return {"Endpoints": {"docker": endpoint}, "TLSMaterial": material, "Storage": {"TLSPath": where}}


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        (context("unix:///run/docker.sock", []), {"DOCKER_CERT_PATH": "/c"}, Host("unix:///run/docker.sock")),
        (context("tcp://a:2375", []), {}, Host("tcp://a:2375")),
        (
            context("tcp://a:2376", ALL),
            {"DOCKER_CERT_PATH": "/c", "DOCKER_CONFIG": "/config"},
            Host("tcp://a:2376", tls=True, ca="/c/ca.pem", certificate="/c/cert.pem", key="/c/key.pem"),
        ),
        (context("tcp://a:2376", ["ca.pem"]), {"DOCKER_CONFIG": "/d"}, Host("tcp://a:2376", tls=True, ca="/d/ca.pem")),
        (
            context("tcp://a:2376", ["ca.pem"], where="/contexts/tls/1"),
            {"DOCKER_CERT_PATH": "/c"},
            Host("tcp://a:2376", tls=True, ca="/contexts/tls/1/docker/ca.pem"),
        ),
        (context("tcp://a:2376", [], skip=True), {}, Host("tcp://a:2376", tls=True, verify=False)),
        (context("ssh://me@a", []), {}, Host("ssh://me@a")),
    ],
    ids=["a socket", "no TLS", "by environment", "a CA alone", "a context's own", "unverified", "ssh"],
)
def test_where_an_engine_is(given: dict[str, Any], environ: dict[str, str], found: Host) -> None:
    assert read(given, environ) == found


def test_the_reason_is_what_was_first_and_not_what_was_wrapped_around_it() -> None:
    wrapped = RequestsConnectionError("HTTPConnectionPool(host='localhost'): Max retries exceeded")
    wrapped.__context__ = PermissionError(13, "Permission denied")
    assert reason(wrapped) == "Permission denied"
    wrapped.__context__ = TimeoutError("timed out")
    assert reason(wrapped) == "it took too long"
    wrapped.__context__ = None
    assert reason(wrapped).startswith("HTTPConnectionPool")
