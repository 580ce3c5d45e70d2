"""Checks that hang, crash, fork, flood or leave processes behind: each fails alone, is named, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, hear_signals
from tests.support.processes import background
from tests.support.waiting import until

pytestmark = pytest.mark.needs("linux")

BAD = """\
import ctypes, os, signal, subprocess, sys, time
from stackrt.checks import registry
from stackrt.checks.registry import check
from stackrt.checks.result import passed

MARK = sys.argv[1]
def bad(name, seconds=20.0):
    return check(name, timeout=seconds, proves="nothing", criterion="none")
def sleeper():
    return subprocess.Popen(["sleep", MARK], start_new_session=True)

@bad("hangs", 1.0)
def hangs(context):
    print("waiting for a peer")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeper()
    time.sleep(600)
@bad("segfaults")
def segfaults(context):
    print("about to crash")
    ctypes.string_at(0)
@bad("floods")
def floods(context):
    while True:
        sys.stdout.write("x" * 100000)
@bad("forks", 2.0)
def forks(context):
    for _ in range(40):
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", MARK])
    time.sleep(600)
@bad("leaves-a-daemon")
def leaves_a_daemon(context):
    if os.fork() == 0:
        sleeper()
        os._exit(0)
    os.wait()
    return passed("all well")
@bad("raises")
def raises(context):
    raise RuntimeError("the disk is gone")
@bad("ends-without-a-word")
def ends(context):
    os._exit(7)
@bad("is-killed")
def is_killed(context):
    os.kill(os.getpid(), signal.SIGKILL)
@bad("fills-scratch")
def fills(context):
    (context.scratch / "file").write_text("x")
    return passed(str(context.scratch))
@bad("is-well")
def is_well(context):
    return passed("well", unit=1)
registry.SUBJECTS = ()
"""
PATIENT = BAD.replace('bad("hangs", 1.0)', 'bad("hangs", 60.0)')


def run(code: str, folder: Path, *words: str) -> AbstractContextManager[subprocess.Popen[str]]:
    script = folder / "suite.py"
    script.write_text(code + "from stackrt.checks.__main__ import main\nsys.exit(main(sys.argv[2:]))\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "images"), "TMPDIR": str(folder)}
    argv = [sys.executable, str(script), mark(folder), *words]
    return background(argv, env=env, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hear_signals)


def mark(folder: Path) -> str:
    """A number of seconds that no other `sleep` on this machine has."""
    return f"600.{abs(hash(str(folder))) % 10**9:09d}1"


def sleeping(folder: Path) -> list[str]:
    words = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in words if line == f"sleep {mark(folder)}"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]], int]:
    folder = tmp_path_factory.mktemp("bad")
    with run(BAD, folder, "--json", str(folder / "report.json")) as started:
        started.communicate(timeout=120)
    rows = json.loads((folder / "report.json").read_text())["checks"]
    return folder, {row["name"]: row for row in rows}, started.returncode


@pytest.mark.parametrize(
    ("name", "status", "found"),
    [
        ("hangs", "fail", "no result within 1 s; it was killed"),
        ("segfaults", "fail", "it was killed by SIGSEGV"),
        ("floods", "fail", "it printed more than 16 MB and was ended"),
        ("forks", "fail", "no result within 2 s; it was killed"),
        ("leaves-a-daemon", "warn", "all well; but it left behind what was killed since: sleep 600."),
        ("raises", "fail", "it broke off: RuntimeError: the disk is gone"),
        ("ends-without-a-word", "fail", "it ended with exit code 7 and without a result"),
        ("is-killed", "fail", "it was killed by SIGKILL"),
        ("is-well", "pass", "well"),
    ],
)
def test_a_bad_check_is_named_and_harms_no_other(
    ran: tuple[Path, dict[str, dict[str, Any]], int], name: str, status: str, found: str
) -> None:
    row = ran[1][name]
    assert (row["status"], row["found"][: len(found)]) == (status, found), row
    if status != "pass":
        assert row["expected"]
        assert row["todo"]


def test_the_last_lines_tell_why(ran: tuple[Path, dict[str, dict[str, Any]], int]) -> None:
    assert "waiting for a peer" in ran[1]["hangs"]["output"]
    assert "about to crash" in ran[1]["segfaults"]["output"]
    assert any("Segmentation fault" in line for line in ran[1]["segfaults"]["output"])
    assert any("the disk is gone" in line for line in ran[1]["raises"]["output"])


def test_nothing_is_left_behind(ran: tuple[Path, dict[str, dict[str, Any]], int]) -> None:
    folder, rows, code = ran
    assert code == 2
    assert sleeping(folder) == []
    assert not Path(rows["fills-scratch"]["found"]).exists()
    assert list(folder.glob("stack-checks-*")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_and_all_that_it_started(tmp_path: Path, number: int, code: int) -> None:
    with run(PATIENT, tmp_path, "--only", "hangs") as started:
        until(lambda: bool(sleeping(tmp_path)), 20)
        started.send_signal(number)
        _, said = started.communicate(timeout=20)
    assert started.returncode == code
    assert "interrupted; all checks have been ended" in said
    assert sleeping(tmp_path) == []
    assert list(tmp_path.glob("stack-checks-*")) == []


def test_when_the_suite_itself_is_killed_its_checks_end(tmp_path: Path) -> None:
    with run(PATIENT, tmp_path, "--only", "hangs") as started:
        until(lambda: bool(sleeping(tmp_path)), 20)
        started.kill()
        started.communicate(timeout=20)
    until(lambda: not sleeping(tmp_path), 20)
