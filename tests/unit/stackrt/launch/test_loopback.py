from __future__ import annotations

import socket
from typing import NoReturn

import pytest

from stackrt.launch import loopback


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["lo", "eth0", "docker0"], "lo"),
        (["lo0", "gif0", "stf0", "en0"], "lo0"),
        (["eth0", "lo0", "lo"], "lo"),
        ([], "lo"),
    ],
)
def test_it_has_the_name_that_the_system_gives_it(names: list[str], name: str) -> None:
    assert loopback.interface(names) == name


def test_where_the_system_does_not_tell_it_is_linuxs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(socket, "if_nameindex", refuse)
    assert loopback.interface() == "lo"


def test_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo0"), (2, "en0")])
    assert loopback.interface() == "lo0"
