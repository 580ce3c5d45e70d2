from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pytest

from stackrt.launch import interfaces


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
    assert interfaces.loopback(names) == name


def test_where_the_system_does_not_tell_it_is_linuxs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(socket, "if_nameindex", refuse)
    assert interfaces.loopback() == "lo"


def test_the_system_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo0"), (2, "en0")])
    assert interfaces.loopback() == "lo0"


@pytest.mark.needs("linux")
def test_an_address_of_this_machine_leads_to_its_interface() -> None:
    lo = interfaces.loopback()
    assert interfaces.of_address("127.0.0.1") == lo
    assert interfaces.of_address("::ffff:127.0.0.1") == lo
    assert interfaces.of_address("203.0.113.7") == "", "no machine has an address of the documents"


@pytest.mark.needs("linux")
def test_ipv6_addresses_are_the_kernels_table(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/if_inet6").write_text(
        "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000007 02 40 00 80     eth1\n"
    )
    assert interfaces.of_address("fd00::7", tmp_path) == "eth1"
    assert interfaces.of_address("fd00::7%eth1", tmp_path) == "eth1"
    assert interfaces.of_address("fd00::8", tmp_path) == ""
