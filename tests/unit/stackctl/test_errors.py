from __future__ import annotations

import re
from pathlib import Path

import stackctl
from stackctl import errors
from stackctl.errors import CommandFailed, InvalidInput, StackError, did_you_mean


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = InvalidInput("must be at least 1", where="--nodes 0", hint="leave it out for one node")
    assert str(error) == "--nodes 0: must be at least 1\n  leave it out for one node"


def test_exit_codes_are_the_documented_ones() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, StackError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        "StackError": 1,
        "JobFailed": 1,
        "CommandFailed": 1,
        "InvalidInput": 2,
        "MissingHere": 3,
        "NameTaken": 4,
        "StillRunning": 124,
    }


def test_exit_codes_stand_in_the_help_and_in_the_docs() -> None:
    from stackctl.cli.main import cli

    said = re.sub(r"\s+", " ", cli.help or "")
    assert "0 done; 1 the job, build or check failed; 2 wrong usage; 3 something is missing on this machine" in said


def test_a_failed_command_carries_its_last_lines() -> None:
    error = CommandFailed(["docker", "compose", "up", "-d", "node-0"], 17, "\n".join(f"line {n}" for n in range(30)))
    assert "`docker compose up …` ended with exit code 17" in str(error)
    assert "  | line 29" in str(error)
    assert "line 14" not in str(error)


def test_did_you_mean() -> None:
    assert did_you_mean("pytroch", ["pytorch", "horovod"]) == "did you mean 'pytorch'?"
    assert did_you_mean("xyz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("xyz", []) == ""


def test_no_module_is_too_long_to_read() -> None:
    root = Path(stackctl.__file__).parent.parent
    files = [
        path for folder in ("stackctl", "images/stackrt", "scripts", "bench") for path in (root / folder).rglob("*.py")
    ]
    assert {str(path): count for path in files if (count := len(path.read_text().splitlines())) > 400} == {}
