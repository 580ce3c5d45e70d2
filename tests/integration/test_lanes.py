"""`make test` and its lanes, as they are called; that they run is what runs this."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.commands import ROOT
from tests.lanes import load


def test_make_passes_lanes_and_options_on() -> None:
    venv = Path(sys.executable).parent.parent
    argv = ["make", "--silent", "--dry-run", "test", f"VENV={venv}", "LANES=checks runs --jobs 1"]
    said = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"{venv}/bin/python -m tests.lanes checks runs --jobs 1\n" in said


def test_a_lane_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    argv = [sys.executable, "-m", "tests.lanes", "nonsense"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"no lane nonsense; there are {', '.join(load())}" in done.stderr


def test_every_test_is_in_one_lane_and_runs_once() -> None:
    from tests.lanes import QUIET, lane_of, load

    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 100
    assert {lane_of(path) for path in files} == load().keys() - {QUIET}
