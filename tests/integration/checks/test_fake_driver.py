"""Suite and launcher on a machine that seems to have GPUs: the driver's libraries are found as a real one's are."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT
from tests.fakes.driver import FakeDriver, two

pytestmark = pytest.mark.needs("compiler", "linux")


def python(folder: Path, machine: FakeDriver, *words: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    env = {**os.environ, **machine.write(folder), "PYTHONPATH": str(ROOT / "images")}
    argv = [sys.executable, "-P", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def suite(folder: Path, machine: FakeDriver, *words: str) -> tuple[int, dict[str, Any]]:
    checks = ["-m", "stackrt.checks", "--only", "gpus-visible,gpu-health,p2p-exact", "--json", "-"]
    done = python(folder, machine, *checks, *words)
    assert done.stdout, done.stderr
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["checks"]}


def test_gpus_that_the_driver_shows_are_seen_and_judged(tmp_path: Path) -> None:
    first, second = two()
    code, rows = suite(tmp_path / "sound", FakeDriver(gpus=[first]))
    assert code == 0
    assert rows["gpus-visible"]["status"] == rows["gpu-health"]["status"] == "pass"
    assert (rows["p2p-exact"]["status"], rows["p2p-exact"]["found"]) == ("skip", "only one GPU is visible here")

    code, rows = suite(tmp_path / "missing", FakeDriver(gpus=[second]), "--require", "2")
    assert code == 2
    assert rows["gpus-visible"]["status"] == "fail"


def test_the_launcher_sees_those_that_answer(tmp_path: Path) -> None:
    first, second = two()
    asked = "import json; from stackrt.launch.gpus import *; print(json.dumps([driver_version(), bus_ids()]))"
    machine = FakeDriver(gpus=[dataclasses.replace(first, gone=15), second])
    assert json.loads(python(tmp_path / "here", machine, "-c", asked).stdout) == ["580.95.05", ["0000:3c:00.0"]]
