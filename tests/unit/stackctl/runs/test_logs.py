from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, BrokenOff, Silent
from stackctl.runs import logs

ROWS = [f"2026-11-22T06:00:{n // 4:02}.{n % 4}00000000Z [ {n % 2}] line {n // 2}".encode() for n in range(40)]
LINES = [row.partition(b" ")[2] for row in ROWS]


class Server:
    """A log that breaks off after some lines, and that answers `sinceTime` as Kubernetes does: in whole seconds."""

    def __init__(self, *breaks: int | ApiError, silent: bool = False) -> None:
        self.breaks, self.end = list(breaks), Silent if silent else BrokenOff
        self.asked: list[Mapping[str, str]] = []

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        self.asked.append(query)
        end = self.breaks.pop(0) if self.breaks else len(ROWS)
        if isinstance(end, ApiError):
            raise end
        yield self._rows(query.get("sinceTime", ""), end)

    def _rows(self, since: str, end: int) -> Iterator[bytes]:
        yield from (row for row in ROWS[:end] if row[:19].decode() + "Z" >= since)
        if end < len(ROWS):
            raise self.end("broke off")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PAUSE", 0.0)


def read(server: Server, **given: Any) -> list[bytes]:
    return list(logs.read(cast(Cluster, server), "team", "a-0-x", **given))


def clock(monkeypatch: pytest.MonkeyPatch, *, step: float) -> None:
    """A clock that goes on by so many seconds each time it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: next(ticks) * step)


@pytest.mark.parametrize("breaks", [[], [7], [1, 2, 3], [5, 5, 5, 30], [39, 12, 40]])
def test_a_log_is_read_once_however_often_it_breaks(breaks: list[int]) -> None:
    server = Server(*breaks)
    assert read(server, follow=True) == LINES
    assert "sinceTime" not in server.asked[0]


def test_it_is_taken_up_near_where_it_broke() -> None:
    server = Server(30)
    read(server)
    assert server.asked[1]["sinceTime"] == "2026-11-22T06:00:05Z"


def test_a_log_is_followed_until_its_container_has_ended() -> None:
    ended = iter([False, True])
    server = Server()
    assert read(server, follow=True, ended=lambda: next(ended)) == LINES
    assert [row.get("follow") for row in server.asked] == ["true", None], "read to its end once more"


def test_a_rank_may_be_silent_for_hours() -> None:
    ended = iter([*[False] * 200, True])
    server = Server(*[20] * 200, silent=True)
    assert read(server, follow=True, ended=lambda: next(ended)) == LINES


def test_a_machine_that_does_not_answer_is_not_waited_for_once_its_pod_has_ended() -> None:
    with pytest.raises(Silent):
        read(Server(*[20] * 200, silent=True))


def test_a_stream_that_always_breaks_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, step=3.0)
    with pytest.raises(BrokenOff):
        read(Server(*[20] * 400), follow=True, ended=lambda: False)


def test_a_cluster_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, step=1.0)
    away = [BrokenOff("the cluster at x does not answer: refused")] * 200
    server = Server(20, *away, 30, *away)
    assert read(server, follow=True, ended=lambda: not server.breaks) == LINES, "it was away for 200 s, twice"
    with pytest.raises(BrokenOff, match="refused"):
        read(Server(20, *away * 4), follow=True, ended=lambda: False)


def test_a_proxy_may_break_idle_streams_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, step=60.0)
    server = Server(*[20] * 200)
    assert read(server, follow=True, ended=lambda: not server.breaks) == LINES


def test_a_pod_that_has_gone_or_never_started_has_no_lines() -> None:
    assert read(Server(ApiError("gone", status=404))) == []
    assert read(Server(ApiError("waiting to start", status=400))) == []


def test_what_cannot_be_had_is_an_error() -> None:
    with pytest.raises(ApiError):
        read(Server(ApiError("forbidden", status=403)), follow=True)


@pytest.mark.parametrize(
    "said",
    [
        b"unable to retrieve container logs for containerd://8f3c",
        b'failed to try resolving symlinks in path "/var/log/pods/a/0.log": no such file or directory',
        b"rpc error: code = NotFound desc = an error occurred",
    ],
)
def test_the_kubelets_own_words_are_no_line(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.stackctl.runs.test_logs.ROWS", [said])
    with pytest.raises(logs.Unreadable, match=said.decode()[:20]):
        read(Server())


def test_the_rest_of_a_line_that_another_stream_came_between_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.stackctl.runs.test_logs.ROWS", [*ROWS[:2], b"failed at last", b""])
    assert read(Server()) == [*LINES[:2], b"failed at last"]


def test_ranks() -> None:
    assert (logs.rank_of(b"[ 3] x"), logs.rank_of(b"[12] [1] y")) == (3, 12)
    assert logs.rank_of(b"stackrt.launch: waiting") is None
    assert logs.without_prefix(b"[ 3] [1] x") == b"[1] x"
