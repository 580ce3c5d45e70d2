from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from requests import ConnectionError as RequestsConnectionError

from stackctl.engines.docker_api import Host, read, reason, whole_lines, write

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


def test_lines_are_whole_whatever_pieces_they_come_in() -> None:
    pieces = [(1, b"a\nb"), (2, b"err"), (1, b"b\xc3"), (1, b"\xa4\nc\nd"), (2, b"or\n"), (1, b"")]
    assert list(whole_lines(pieces)) == [(1, b"a\n"), (1, b"bb\xc3\xa4\nc\n"), (2, b"error\n"), (1, b"d")]


def test_a_line_without_end_is_not_held_for_ever() -> None:
    shown = list(whole_lines((1, bytes(1 << 14)) for _ in range(1 << 8)))
    assert len(shown) > 1
    assert b"".join(data for _, data in shown) == bytes(1 << 22)


def test_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    writing = threading.Thread(target=write, args=(writable, bytes(1 << 20)), daemon=True)
    writing.start()
    left = 1 << 20
    while left:
        left -= len(os.read(readable, left))
    writing.join()
    os.close(readable)
    os.close(writable)
