"""How long a job's words may be in a cluster. Pure."""

from __future__ import annotations

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs.job import Job

MOST_WORD = 128 * 1024 - 1
"""Bytes of one argument, or of one variable with its name: what Linux takes (MAX_ARG_STRLEN)."""

MOST_NOTED = 252 * 1024
"""Bytes of a job as JSON: it is kept in an annotation, and Kubernetes takes 256 KiB for all of an object's."""

_HINT = "put what is long into a file: ship it with --code, or have it on a --volume"


def check(job: Job) -> None:
    """Refuse a job that is too long for a cluster.

    Raises:
        InvalidInput: Says what is too long, and by how much.
    """
    words = {f"word {number} of the command": word for number, word in enumerate(job.command, 1)}
    words |= {f"--env {name}": f"{name}={value}" for name, value in job.env.items()}
    for where, word in words.items():
        size = len(word.encode(errors="surrogateescape"))
        if size > MOST_WORD:
            message = f"is {_kib(size)} KiB long, and Linux takes {_kib(MOST_WORD + 1)} KiB at most"
            raise InvalidInput(message, where=where, hint=_HINT)
    size = len(msgspec.json.encode(job))
    if size > MOST_NOTED:
        message = f"with its settings it is {_kib(size)} KiB long, and a cluster takes {_kib(MOST_NOTED)} KiB at most"
        raise InvalidInput(message, where=f"the command ({job.command[0]} …, {len(job.command)} words)", hint=_HINT)


def _kib(size: int) -> str:
    return f"{size / 1024:,.0f}"
