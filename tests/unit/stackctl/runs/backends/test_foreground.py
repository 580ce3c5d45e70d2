from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.errors import NameTaken
from stackctl.jobs import job as jobs
from stackctl.runs.backends.foreground import claimed

JOB = jobs.make(name="a", workload="gpt")


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_goes_on_is_not_resumed(resume: bool, tmp_path: Path) -> None:
    tmp_path.joinpath("a").mkdir()
    again = claimed(tmp_path / "a", JOB, resume=True)
    with claimed(tmp_path / "a", JOB, resume=resume), pytest.raises(NameTaken, match="still going on"), again:
        pass
    with claimed(tmp_path / "a", JOB, resume=True) as (attempt, _):
        assert attempt == 1
