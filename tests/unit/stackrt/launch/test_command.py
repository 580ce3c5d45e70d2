"""Whether a rank's command can be started, as the launcher tells before the start."""

import os
from pathlib import Path

import pytest

from stackrt.launch.__main__ import wrong_command

NOBODY = 64_999


def as_nobody(program: str) -> str:
    """What `wrong_command` says to a user who may read nothing of root's; empty if it takes the command."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            os.write(writable, (wrong_command(program) or "").encode())
        finally:
            os._exit(0)
    os.close(writable)
    os.waitpid(pid, 0)
    text = os.read(readable, 4096).decode()
    os.close(readable)
    return text


@pytest.mark.needs("root", "linux")
def test_an_entry_of_path_that_may_not_be_searched_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir(mode=0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'locked' / 'bin'}:/usr/bin:/bin")
    assert as_nobody("sleep") == ""
    assert as_nobody("no-such-program").startswith("no-such-program: command not found")
    assert "command not found" in as_nobody(str(tmp_path / "locked" / "mine"))


@pytest.mark.parametrize("program", ["x" * 300, "x" * 5000, "nul\0nul", "a/" * 3000])
def test_a_name_that_no_file_can_have(program: str) -> None:
    assert "command not found" in str(wrong_command(program))


def test_a_file_that_may_not_be_executed(tmp_path: Path) -> None:
    (tmp_path / "here").touch(mode=0o600)
    assert f"{tmp_path / 'here'}: not executable" in str(wrong_command(str(tmp_path / "here")))
