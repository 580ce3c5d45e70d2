"""A pytest plugin for one rank: it leaves out tests that are done, and writes at once what became of each other one.

Ranks begin a test together: else one could end in a later test, and the verdict would fall on an earlier one.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

OUT = Path(os.environ["STACK_OUT"])
LOGS = [OUT / f"rank-{rank}.jsonl" for rank in range(int(os.environ["HOROVOD_SIZE"]))]
LOG = LOGS[int(os.environ["HOROVOD_RANK"])]
failed: set[str] = set()


def say(test: str, event: str, why: str = "") -> None:
    """Add a line to this rank's log."""
    with LOG.open("a", encoding="utf-8") as log:
        log.write(json.dumps({"test": test, "event": event, "why": why}) + "\n")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is done."""
    done = set((OUT / "done.txt").read_text(encoding="utf-8").splitlines())
    items[:] = [item for item in items if name(item.nodeid) not in done]
    for item in items:
        say(name(item.nodeid), "collected")


def pytest_runtest_logstart(nodeid: str) -> None:
    """A test begins."""
    say(name(nodeid), "started")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A phase of a test has ended."""
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        say(name(report.nodeid), "skipped", reason.removeprefix("Skipped: "))
    elif report.failed:
        lines = [line[2:].strip() for line in str(report.longrepr).splitlines() if line.startswith("E ")]
        failed.add(report.nodeid)
        say(name(report.nodeid), "failed", " ".join(lines[:2]) or str(report.longrepr)[-200:])
    elif report.when == "call":
        say(name(report.nodeid), "passed")


def pytest_runtest_logfinish(nodeid: str) -> None:
    """A test has ended, with its clean-up: wait for the other ranks, unless this one is about to leave."""
    say(name(nodeid), "finished")
    line = LOG.read_text(encoding="utf-8").splitlines()[-1]
    while nodeid not in failed and not all(log.exists() and line in log.read_text(encoding="utf-8") for log in LOGS):
        time.sleep(0.02)


def name(nodeid: str) -> str:
    """`test_torch.py::TorchTests::test_horovod_rank`, whatever the folder."""
    return nodeid.rpartition("/")[2]
