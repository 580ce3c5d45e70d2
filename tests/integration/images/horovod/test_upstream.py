"""The command that runs Horovod's own tests: one that fails, hangs or crashes does not end the run, and is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import ROOT, environment

pytestmark = [pytest.mark.needs("docker", "index"), pytest.mark.timeout(1800)]

# Ranks that part ways, as upstream's tests can: each kind of end, and a good test after it.
FAKE = """
import os, time
import pytest

RANK = int(os.environ["HOROVOD_RANK"])

def test_passes(): pass
def test_fails_on_one_rank(): assert RANK == 0, "one rank is not as the other"
def test_after_a_failure(): pass
def test_hangs_on_one_rank(): time.sleep(600 * RANK)
def test_after_a_hang(): pass
def test_crashes(): os.abort()
@pytest.mark.skip(reason="no GPU")
def test_skipped(): pass
"""


def upstream(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "scripts" / "horovod_upstream.py"), *words]
    return subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=900, check=False)


def test_every_test_gets_a_verdict(built: Callable[[str], str], tmp_path: Path) -> None:
    built("horovod-pytorch")
    (tmp_path / "test" / "parallel").mkdir(parents=True)
    (tmp_path / "test" / "parallel" / "test_fake.py").write_text(FAKE)
    tmp_path.chmod(0o755)  # the container is another user
    done = upstream(str(tmp_path), "--image", "horovod-pytorch", "--file", "test_fake.py", "--limit", "8")
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (counts,) = [line.split()[1:] for line in lines if line.startswith("test_fake.py  ")]
    assert counts == ["3", "1", "1", "1", "1"], done.stdout  # passed, skipped, failed, hung, crashed
    assert "skipped 1: no GPU" in lines
    ends = {line.split()[0]: line for line in lines if "test_fake.py::" in line and not line.startswith(" ")}
    assert "test_fails_on_one_rank: AssertionError: one rank is not as the other" in ends["failed"]
    assert "test_hangs_on_one_rank: on one rank; the other has finished" in ends["hung"]
    assert "test_crashes: on every rank" in ends["crashed"]
    assert lines[-1] == "3 unexpected"


def test_a_folder_without_tests_is_refused(tmp_path: Path) -> None:
    done = upstream(str(tmp_path), "--image", "horovod-pytorch")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(f"{tmp_path}: there is no folder test/parallel")
