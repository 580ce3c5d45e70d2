"""stackctl from Python, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stackctl import Job, find, run
from tests.commands import PREFIX, ROOT
from tests.support.examples import failures

PAGE = ROOT / "docs" / "python.md"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)  # containers run as another user than root
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("STACK_IMAGE_PREFIX", PREFIX)


def test_the_examples_of_the_page_are_true(capfd: pytest.CaptureFixture[str]) -> None:
    assert failures(PAGE, {"From Python", "On this machine", "When something fails", "In a notebook"}) == ""
    assert capfd.readouterr() == ("", ""), "nothing is printed"


def test_what_output_raises_comes_back_and_the_job_ends_as_ever(capfd: pytest.CaptureFixture[str]) -> None:
    def full(_line: str) -> None:
        raise ValueError("no room for it")

    with pytest.raises(ValueError, match="no room for it"):
        run(Job(command=["python", "-c", "print('x\\n' * 100000)"], procs=1, name="told"), output=full)
    assert find("told").status().state == "succeeded"
    assert capfd.readouterr() == ("", "")


@pytest.mark.needs("docker")
@pytest.mark.usefixtures("leaves_nothing")
def test_a_job_runs_in_containers_as_from_the_command_line(image: str, capfd: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    script = "import os, sys; print('rank', os.environ['RANK']); print('said', file=sys.stderr)"
    job = Job(command=["python", "-c", script], nodes=2, name=f"t{os.getpid()}-{time.monotonic_ns() % 10**9}")
    done = run(job, on="compose", output=heard.append)
    done.wait().check()
    assert sorted(heard) == ["[0] rank 0", "[0] said", "[1] rank 1", "[1] said"]
    assert sorted(done.logs(rank=1)) == ["[1] rank 1", "[1] said"]
    assert done.status().attempt == 1
    assert capfd.readouterr() == ("", "")


def test_the_package_is_imported_in_an_instant_and_the_rest_when_it_is_used() -> None:
    code = (
        "import stackctl, sys; print(sorted({'click', 'docker', 'kubernetes', 'msgspec', 'urllib3'} & {*sys.modules}));"
        "stackctl.Job; print(sorted({'click', 'docker', 'kubernetes', 'urllib3'} & {*sys.modules}));"
        "stackctl.run; print(sorted({'docker', 'kubernetes', 'urllib3'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "[]"]
