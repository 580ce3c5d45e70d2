"""Run checks: those that may run side by side first, then the others one by one, then those of several nodes."""

import dataclasses
import selectors
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stackrt.checks.context import Context
from stackrt.checks.isolate import Running
from stackrt.checks.registry import Check
from stackrt.checks.result import Result, failed, skipped
from stackrt.launch import cpus
from stackrt.signals import handled

TICK = 1.0
"""Seconds between looks at checks whose supervisor may be stuck."""


@dataclass(frozen=True)
class Row:
    """A check and what came of it."""

    check: Check
    result: Result
    begun: float = 0.0
    """Seconds since the machine's start (time.monotonic)."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of all processes of the check: far below `seconds`, it waited, for a disk, a peer or a busy machine."""
    output: tuple[str, ...] = ()
    """The last lines that it printed."""


def idle(rows: Sequence[Row], begun: float, ended: float) -> float:
    """Seconds of a span of time in which none of these checks ran: what the suite itself took."""
    busy, until = 0.0, begun
    for start, end in sorted((row.begun, row.begun + row.seconds) for row in rows if row.begun):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return ended - begun - busy


class Interrupted(Exception):
    """A signal has ended the run; `number` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(
    checks: Sequence[Check],
    context: Context,
    *,
    on_end: Callable[[Row], None] | None = None,
    meet: Callable[[str], str] | None = None,
) -> list[Row]:
    """Run checks and return their rows in the order of `checks`.

    A check whose needs are not met is skipped, or has failed if the caller said that they must be.

    Args:
        context: What each is told; its scratch folder is made anew for each, below this one.
        on_end: Called with each row as it comes.
        meet: Called before each check of several nodes, to start it on all of them together; says what is wrong.

    Raises:
        Interrupted: A signal came; all that was started has been ended.
    """
    rows: dict[str, Row] = {}

    def ended(row: Row) -> None:
        rows[row.check.name] = row
        if on_end:
            on_end(row)

    able = []
    for check in checks:
        reason = next(((need, text) for need in check.needs if (text := context.lacks(need))), None)
        if reason is None:
            able.append(check)
        else:
            ended(Row(check, _absent(*reason, context.required)))
    local = [check for check in able if "multi-node" not in check.needs]
    _several([check for check in local if check.parallel], cpus.usable().at_once, context, ended)
    _several([check for check in local if not check.parallel], 1, context, ended)
    for check in able:
        if check not in local:
            absent = meet(check.name) if meet else ""
            if absent:
                todo = "see what those nodes have printed"
                ended(Row(check, failed(absent, expected=f"all {context.nodes} nodes", todo=todo)))
            else:
                _several([check], 1, context, ended)
    return [rows[check.name] for check in checks]


def _absent(need: str, reason: str, required: frozenset[str]) -> Result:
    if need not in required:
        return skipped(reason)
    return failed(
        reason, expected=f"{need}, as --require says", todo=f"run it where there is one, or without --require {need}"
    )


def _several(checks: Sequence[Check], width: int, context: Context, ended: Callable[[Row], None]) -> None:
    """Run checks, at most `width` at a time."""
    waiting = list(checks)
    running: dict[int, Running] = {}
    heard: list[int] = []
    with selectors.DefaultSelector() as selector, handled(heard.append):
        try:
            while waiting or running:
                while waiting and len(running) < width:
                    check = waiting.pop(0)
                    started = Running(check, dataclasses.replace(context, scratch=context.scratch / check.name))
                    running[started.watch] = started
                    for source in (started.watch, started.report, started.output):
                        selector.register(source, selectors.EVENT_READ, started)
                _look(selector, running, context, ended)
                if heard:
                    raise Interrupted(heard[0])
        finally:
            _end(running.values())


def _look(
    selector: selectors.BaseSelector, running: dict[int, Running], context: Context, ended: Callable[[Row], None]
) -> None:
    """Read what checks have said since, and take note of those that have ended."""
    for key, _ in selector.select(TICK):
        started = key.data
        if selector.get_map().get(key.fd) is not key:
            continue  # its check has ended with an earlier event of this round, and all its descriptors are closed
        if key.fd != started.watch:
            if not started.read(key.fd):
                selector.unregister(key.fd)
        else:
            del running[started.watch]
            for source in (started.watch, started.report, started.output):
                if source in selector.get_map():
                    selector.unregister(source)
            result, seconds, cpu_seconds, output = started.end()
            shutil.rmtree(context.scratch / started.check.name, ignore_errors=True)
            ended(Row(started.check, result, started.started, seconds, cpu_seconds, tuple(output)))
    for started in running.values():
        if started.overdue:
            started.stop(signal.SIGKILL)


def _end(running: Iterable[Running]) -> None:
    """End checks whose results nobody waits for."""
    for started in running:
        started.stop()
    for started in running:
        started.end()
