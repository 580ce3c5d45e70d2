"""A run of the suite: on this node, and with several nodes together with the others."""

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from stackrt.checks import host, report, show
from stackrt.checks.context import Context
from stackrt.checks.meeting import MeetingError, Server, gather, is_served, leave
from stackrt.checks.registry import Check
from stackrt.checks.runner import Row, idle, run

LONGEST_WAIT = 900.0
"""Seconds that a node waits for the others between its own checks and those of all; the launcher sees who is lost."""


def hold(checks: Sequence[Check], context: Context) -> dict[str, Any]:
    """Run the checks and return the report: with several nodes that of all, the same on each.

    Raises:
        Interrupted: A signal came.
        MeetingError: Some node has brought no results.
    """
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")

    def on_end(row: Row) -> None:
        # One node's list is enough to follow; of the others, what is wrong there.
        if context.node_rank == 0 or row.result.status in ("warn", "fail"):
            print(show.line(row), file=sys.stderr, flush=True)

    def meet(name: str) -> str:
        try:
            _all(context, f"before {name}", None)
        except MeetingError as error:
            return str(error)
        return ""

    alone = context.meeting is not None and not is_served(os.environ)
    server = Server(context.meeting, context.nodes) if context.meeting and alone and context.node_rank == 0 else None
    try:
        facts = host.facts()
        rows = run(checks, context, on_end=on_end, meet=meet)
        mine = {
            "facts": facts,
            "rows": report.rows_of(rows, context.node_rank),
            "overhead": idle(rows, begun, time.monotonic()),
        }
        parts = _all(context, "report", mine)
    finally:
        if server:
            server.close()
        elif context.meeting and alone:
            leave(context.meeting)
    return report.document(
        image=context.image,
        seen=context.seen,
        nodes=[part["facts"] for part in parts],
        checks=[row for part in parts for row in part["rows"]],
        started=started,
        seconds=time.monotonic() - begun,
        overhead=max(part["overhead"] for part in parts),
    )


def _all(context: Context, key: str, value: Any) -> list[Any]:
    """What every node brings under a key; on a single node its own."""
    if context.meeting is None:
        return [value]
    return gather(context.meeting, context.node_rank, key, value, LONGEST_WAIT, context.nodes)
