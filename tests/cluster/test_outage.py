"""A person whose cluster does not answer for a while: what follows a run goes on as soon as it does again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.faults import Way
from tests.cluster.submitting import Submitter

pytestmark = pytest.mark.needs("cluster")

COUNTS = 'n=0; while [ ! -e /out/enough ]; do n=$((n+1)); echo "line $n"; sleep 0.2; done; echo "of $n"'


@pytest.fixture
def config(submitter: Submitter) -> dict[str, Any]:
    """The way to the cluster, as kubectl shows it."""
    found = json.loads(submitter.cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def way(config: dict[str, Any]) -> Iterator[Way]:
    found = Way(config["clusters"][0]["cluster"]["server"])
    yield found
    found.shut()


@pytest.fixture
def beyond(submitter: Submitter, config: dict[str, Any], way: Way, tmp_path: Path) -> Submitter:
    """The submitter, who reaches the cluster through that way only."""
    through = {"server": f"https://127.0.0.1:{way.port}", "tls-server-name": "kubernetes.default.svc"}
    config["clusters"][0]["cluster"] |= through
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return dataclasses.replace(submitter, kubeconfig=path)


def test_who_follows_or_waits_outlives_an_api_server_that_is_away(
    submitter: Submitter, beyond: Submitter, way: Way
) -> None:
    submitter.submit("counts", "--no-preflight", "--", "sh", "-c", COUNTS)
    submitter.wait_for("counts", "running", 60)
    with beyond.background("logs", "counts", "--follow") as follows, beyond.background("wait", "counts") as waits:
        assert follows.stdout
        assert follows.stdout.readline() == "[0] line 1\n", rest(follows)
        waited_for(waits, "running")
        way.shut()
        for process in (follows, waits):
            waited_for(process, "does not answer: Connection refused; asking again for 10 minutes")
        way.open()
        [pod] = submitter.pods("counts")
        submitter.kubectl("exec", pod["metadata"]["name"], "--", "touch", "/out/enough")
        printed, noted = rest(follows)
        _, said = rest(waits)
    assert (follows.returncode, waits.returncode) == (0, 0), noted + said
    *lines, last = printed.splitlines()
    assert lines == [f"[0] line {n}" for n in range(2, len(lines) + 2)], "each once, also those of meanwhile"
    assert last == f"[0] of {len(lines) + 1}"


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still prints, and tells, to its end; `communicate` would lose what was read ahead behind a line."""
    process.wait(60)
    assert process.stdout
    assert process.stderr
    return process.stdout.read(), process.stderr.read()


def waited_for(process: subprocess.Popen[str], words: str) -> None:
    """Read what a process tells a person, up to a line with these words."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return
    raise AssertionError(f"it has ended: {said}")
