"""Staying with a run on a cluster until its end: its logs or its changes, then what it came to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec

from stackctl.cli.keeping import tell
from stackctl.errors import JobFailed
from stackctl.runs import explain, observe, store, summary, watch
from stackctl.runs.observe import View
from stackctl.runs.progress import Progress
from stackctl.runs.store import Record
from stackctl.runs.watch import Run


def until_end(run: Run, *, follow: bool) -> None:
    """Wait for the end of a run, and say how it ended.

    Raises:
        JobFailed: It failed, or was removed; says why.
    """
    progress = Progress(run, tell)
    try:
        if follow:
            show_logs(run, observe.nodes_of(run.job), seen=progress.look)
        now = watch.wait(run, lambda view: None if follow else progress.look(view))
    except KeyboardInterrupt:
        click.echo(f"\n{run.name} goes on; stop it with: stackctl cancel {run.name}", err=True)
        sys.exit(130)
    finish(run, now)


def show_logs(run: Run, nodes: set[int], rank: int | None = None, *, seen: Callable[[View], None]) -> None:
    """Print logs as they come until the run has ended, and keep them in the run's folder."""
    folder = store.home(os.environ) / run.name
    keeper = watch.Keeper(folder) if store.read_record(folder) else None
    if len(nodes) > watch.MOST_STREAMS:
        tell(f"note: the first {watch.MOST_STREAMS} of {len(nodes)} nodes; --node or --rank chooses others")
    try:
        for line in watch.followed(run, nodes, seen):
            if keeper:
                keeper.keep(line)
            if rank is None or line.rank == rank:
                put(line.text)
    finally:
        if keeper:
            keeper.close()


def put(line: bytes) -> None:
    """Print a line as it is, at once."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def put_all(lines: Iterable[bytes]) -> bool:
    """Print lines; tell whether there was any."""
    any_line = False
    for line in lines:
        put(line)
        any_line = True
    return any_line


def finish(run: Run, now: View) -> None:
    """Write down how a run ended, and say it.

    Raises:
        JobFailed: It failed, or was removed; says why.
    """
    folder = store.home(os.environ) / run.name
    record = remember(folder, now)
    if now.state != "succeeded":
        why = explain.explain(watch.facts(run)).text
        raise JobFailed(why, hint=f"attempt {now.attempt} of {now.attempts}; {run.name} is kept until you remove it: "
                                  f"stackctl cancel {run.name}")  # fmt: skip
    if record:
        click.echo(summary.text(run.job, record, folder, now.result), err=True)


def remember(folder: Path, now: View) -> Record | None:
    """Write down in a run's folder how the cluster says that it ended; None if the run is not in the store."""
    record = store.read_record(folder)
    if record is None:
        return None
    if now.result:
        store.write_json(folder / "result.json", now.result)
    if now.failure:
        store.write_json(folder / "failure.json", now.failure)
    code = 0 if now.state == "succeeded" else (now.failure or {}).get("exit_code") if now.state == "failed" else None
    record = msgspec.structs.replace(
        record, state=now.state, attempt=now.attempt, ended=now.ended or record.ended, exit_code=code
    )
    store.write_json(folder / "run.json", record)
    return record
