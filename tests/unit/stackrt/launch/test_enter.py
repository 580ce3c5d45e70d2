"""What is run beside a rank, and with which environment."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from stackrt.launch.enter import CannotEnter, Rank, plan


def program(folder: Path, name: str) -> str:
    path = folder / name
    path.touch()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_is_found_on_the_ranks_path_or_from_its_folder(tmp_path: Path) -> None:
    tool = program(tmp_path, "tool")
    rank = Rank(1, {"PATH": str(tmp_path), "RANK": "3", "TERM": "dumb"}, str(tmp_path))
    assert plan(rank, ["tool", "-x"], {"TERM": "xterm", "RANK": "0"}) == (
        [tool, "-x"],
        {"PATH": str(tmp_path), "RANK": "3", "PWD": str(tmp_path), "TERM": "xterm"},
    )
    assert plan(rank, ["./tool"], {})[0][0] == f"{tmp_path}/tool"


def test_a_shell_is_the_ranks_own_or_the_first_that_there_is(tmp_path: Path) -> None:
    rank = Rank(1, {"PATH": str(tmp_path)}, str(tmp_path))
    with pytest.raises(CannotEnter, match="no shell where the rank runs, neither bash nor sh") as caught:
        plan(rank, [], {})
    assert caught.value.code == 127
    sh = program(tmp_path, "sh")
    assert plan(rank, [], {})[0] == [sh]
    assert plan(rank, [], {})[1]["PWD"] == str(tmp_path)
    fish = program(tmp_path, "fish")
    assert plan(rank._replace(env={**rank.env, "SHELL": fish}), [], {})[0] == [fish]


def test_what_is_no_program_is_said_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    with pytest.raises(CannotEnter, match="no program 'text' where the rank runs") as caught:
        plan(Rank(1, {"PATH": str(tmp_path)}, str(tmp_path)), ["text"], {})
    assert (caught.value.code, caught.value.hint) == (127, f"its PATH is {tmp_path}")
