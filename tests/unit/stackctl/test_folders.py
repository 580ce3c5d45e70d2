"""A person's own folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stackctl import folders


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A uid that no file of users names."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_321_987)


def test_a_home_that_nobody_names_is_the_root(nameless: None) -> None:
    assert (folders.data(), folders.cache()) == (Path("/.local/share/stackctl"), Path("/.cache/stackctl"))
    folders.need_home()
    assert os.environ["HOME"] == "/"
    assert (folders.data(), folders.cache()) == (Path("/.local/share/stackctl"), Path("/.cache/stackctl"))


@pytest.mark.parametrize("home", ["", "relative"])
def test_one_that_can_be_none_too(home: str, nameless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    folders.need_home()
    assert os.environ["HOME"] == "/"


def test_one_that_is_named_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folders.need_home()
    assert folders.expanded("~/a") == tmp_path / "a"


def test_nobodys_folder_stays_as_it_is() -> None:
    assert folders.expanded("~nosuchuser/x") == Path("~nosuchuser/x")
