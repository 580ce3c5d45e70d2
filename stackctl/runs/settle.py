"""Runs of this machine whose stackctl has gone, and nobody wrote down how they ended."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from stackctl.engines import compose
from stackctl.engines.hold import is_held
from stackctl.errors import StackError
from stackctl.runs import store
from stackctl.runs.store import Record


def settled(folder: Path, record: Record) -> Record:
    """The record of a run, put right if it says `running` and nothing of it runs any more.

    Launchers hold the folder as their stackctl does; of containers the engine tells.
    """
    if record.state != "running" or record.backend == "kubernetes" or is_held(folder):
        return record
    try:
        if record.backend == "compose" and compose.containers(record.name, running=True):
            return record
    except StackError:  # the engine does not answer
        return record
    failure = store.read_json(folder / "failure.json")
    told = failure.get("exit_code") if failure else None
    code = told if isinstance(told, int) else 1 if failure else None
    found = msgspec.structs.replace(record, state="failed" if failure else "unknown", exit_code=code)
    with contextlib.suppress(OSError):
        store.write_json(folder / "run.json", found)
    return found
