"""Staying with a run until its end: its logs or its changes, then what it came to."""

from __future__ import annotations

import sys

import click

from stackctl.errors import JobFailed
from stackctl.runs.handle import RunHandle


def tell(text: str) -> None:
    """Say something to a person, apart from a run's own output."""
    click.echo(text, err=True)


def put(line: bytes) -> None:
    """Print a line as it is, at once."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def until_end(run: RunHandle, *, follow: bool) -> None:
    """Wait for the end of a run, and say how it ended.

    Raises:
        JobFailed: It did not succeed; says why.
    """
    try:
        outcome = run.wait(put if follow else None)
    except KeyboardInterrupt:
        tell(f"\n{run.name} goes on; stop it with: stackctl cancel {run.name}")
        sys.exit(130)
    if outcome.state != "succeeded":
        raise JobFailed(outcome.text, hint=outcome.hint)
    if outcome.text:
        tell(outcome.text)
