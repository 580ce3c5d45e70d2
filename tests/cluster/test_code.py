"""Shipped code that a Secret does not hold, on a claim."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.submitting import Submitter

pytestmark = pytest.mark.needs("cluster", "docker")


def test_large_code_goes_to_a_claim_and_only_what_changed_goes_again(
    submitter: Submitter, shared_claim: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "data").write_bytes(os.urandom(3_000_000))
    (code / "mine.py").write_text("import pathlib; print(pathlib.Path('data').stat().st_size)")
    asked = ["submit", "--image", submitter.image, "--code", str(code)]
    done = submitter.stackctl(*asked, "--name", "none", "--", "python", "mine.py")
    assert (done.returncode, "name a claim that takes it (--code-claim NAME)" in done.stderr) == (2, True), done.stderr
    done = submitter.stackctl(
        *asked, "--name", "first", "--nodes", "2", "--volume", "shared", "--follow", "--", "python", "mine.py"
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()[-2:]) == ["[0] 3000000", "[1] 3000000"]
    assert "2 of 2 files were not there: 2.9 MiB sent" in done.stderr
    (code / "mine.py").write_text("print('changed')")
    done = submitter.stackctl(
        *asked, "--name", "second", "--code-claim", "shared", "--follow", "--", "python", "mine.py"
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[0] changed"), done.stderr
    assert "1 of 2 files were not there" in done.stderr
    jobs = submitter.kubectl("get", "jobs", "--output=name").split()
    assert sorted(jobs) == ["job.batch/first", "job.batch/second"], "what has sent it is gone"
