from __future__ import annotations

from pathlib import Path

import pytest

from stackctl import assets
from stackctl.errors import JobFailed, MissingHere, StackError
from stackctl.images import buildlog, catalog
from stackctl.images.buildlog import BuildLog
from stackctl.images.settings import Settings

LOCKS = assets.images_dir() / "locks"
INSTALL = "RUN --mount=type=bind,source=images/locks/pytorch-cpu.txt,target=/run/lock.txt     /run/uv-install"

GOOD = f"""\
#0 building with "default" instance using docker driver
#4 [internal] load .dockerignore
#4 DONE 12.0s
#7 [context wheelhouse] load from client
#7 DONE 4.9s
#9 [base  2/10] RUN apt
#9 CACHED
#10 [tools 1/1] RUN pip
#10 0.3 Collecting uv
#10 2.5 Installed uv
#10 DONE 3.1s
#11 [runtime 2/5] WORKDIR /workspace
#11 DONE 0.1s
#12 [runtime 3/5] {INSTALL}
#12 DONE 1.5s
#13 exporting to image
#13 exporting layers 8.2s done
#13 DONE 8.2s"""


def failed(*output: str, step: str = f"framework 3/3] {INSTALL}", end: str = "exit code: 1") -> StackError:
    """The error made of a failed step's frame, as buildx prints it."""
    lines = ["#1 [internal] x", "#1 DONE 0.0s", "------", f" > [{step}:", *output, "------", "Dockerfile:2"]
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    return buildlog.explain([*lines, f"ERROR: failed to solve: {end}"], target, Settings(), LOCKS)


def test_a_person_sees_steps_that_took_time_and_nothing_of_the_rest() -> None:
    shown: list[str] = []
    log = BuildLog(shown.append)
    for line in GOOD.splitlines():
        log.feed(line)
    assert shown == ["  tools 1/1 …", "  tools 1/1: 3.1 s", "  runtime 3/5: 1.5 s", "  exporting to image: 8.2 s"]


def test_verbose_shows_every_line() -> None:
    shown: list[str] = []
    log = BuildLog(shown.append, verbose=True)
    for line in GOOD.splitlines():
        log.feed(line)
    assert shown == GOOD.splitlines()


@pytest.mark.parametrize(
    "words",
    [
        ["10.1   x Failed to download `numpy==2.4.6`", "10.1   ├─▶ Hash mismatch for `numpy==2.4.6`", "10.1 Expected:"],
        [
            "1.0 ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "1.1     numpy==2.4.6 from x",
        ],
    ],
)
def test_a_wrong_hash_names_the_package_and_the_lines_of_its_lock(words: list[str]) -> None:
    error = failed(*words)
    assert "numpy has another hash than the lock" in error.message
    assert "stack-pytorch:cpu, step framework 3/3" in error.message
    name, number = error.where.rsplit(":", 1)
    assert Path(name).read_text().splitlines()[int(number) - 1].startswith("numpy==")


def test_a_full_disk() -> None:
    error = failed("3.2 cp: error writing '/opt/x': No space left on device")
    assert isinstance(error, MissingHere)
    assert error.message == "the engine's disk is full"


def test_an_absent_base_image_is_named_with_the_setting() -> None:
    reason = (
        "debian:x: failed to resolve source metadata for docker.io/library/debian:x: failed to do request: no such host"
    )
    error = failed(step="internal] load metadata for docker.io/library/debian:x", end=reason)
    assert error.message == "the base image debian:bookworm-slim cannot be had: failed to do request: no such host"
    assert "STACK_BASE_REGISTRY" in error.hint


@pytest.mark.parametrize(
    "line",
    [
        "9.2   ├─▶ Failed to fetch: `https://mirror.example/simple/torch/`",
        "9.2 E: Failed to fetch http://mirror.example/debian/x.deb  Could not resolve 'mirror.example'",
        "9.2 W: Unable to connect to mirror.example:80:",
    ],
)
def test_a_network_that_drops_is_told_with_what_to_do(line: str) -> None:
    error = failed(line)
    assert error.message.startswith("a source does not answer: ")
    assert error.where == "stack-pytorch:cpu, step framework 3/3"
    assert "finished steps are kept" in error.hint


def test_what_a_wheelhouse_lacks_is_named() -> None:
    error = failed(
        "1.0   ╰─▶ Because numpy was not found in the provided package locations and you require numpy==2.4.6"
    )
    assert error.message.startswith("the wheelhouse has no numpy for this Python and platform")


def test_any_other_failure_shows_the_steps_last_lines() -> None:
    error = failed(*(f"{n}.0 line {n}" for n in range(30)))
    assert isinstance(error, JobFailed)
    assert "  | line 29" in error.message
    assert "  | line 14" not in error.message
    assert "--verbose" in error.hint


def test_a_cause_that_the_frame_is_too_short_for_is_found_in_the_log() -> None:
    """The frame has ten lines at most, and a package may have more hashes than that."""
    hashes = [f"    sha256:{number:064x}" for number in range(20)]
    said = [
        "error: Failed to download `numpy==2.5.1`",
        "  cause: Hash mismatch for `numpy==2.5.1`",
        "  Expected:",
        *hashes,
    ]
    head = f"framework 3/3] {INSTALL}"
    log = [f"#8 [{head}", *(f"#8 {0.1 * at:.3f} {line}" for at, line in enumerate(said))]
    lines = [*log, "------", f" > [{head}:", *hashes[-10:], "------", "ERROR: failed to solve: exit code: 1"]
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    error = buildlog.explain(lines, target, Settings(), LOCKS)
    assert "a file of numpy has another hash than the lock" in str(error)
