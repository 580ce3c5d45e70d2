"""The outcome of a check, and how it reads. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from stackctl.errors import MissingHere, StackError

OK, FAILED, SKIPPED = "ok", "FAIL", "skip"


class Result(msgspec.Struct, frozen=True):
    """One check of one thing.

    `state` is `ok`, `FAIL` or `skip`; `message` says what was found, or why the check was left out; `where` is the file
    and key, and `hint` what to do.
    """

    check: str
    subject: str
    state: str
    message: str = ""
    where: str = ""
    hint: str = ""


def attempt(check: str, subject: str, action: Callable[[], str | None]) -> Result:
    """Carry out a check: what it returns, if anything, is said beside `ok`; an expected error is its failure.

    A check whose means are missing on this machine is skipped, with the reason.
    """
    try:
        return Result(check, subject, OK, action() or "")
    except MissingHere as error:
        return Result(check, subject, SKIPPED, error.message, error.where, error.hint)
    except StackError as error:
        return Result(check, subject, FAILED, error.message, error.where, error.hint)


def line(result: Result) -> str:
    """A check in one line; what to do about a failure is in a second one."""
    said = ": ".join(filter(None, [result.where, result.message])) if result.state == FAILED else result.message
    text = f"{result.state:4}  {result.check:11}  " + ": ".join(filter(None, [result.subject, said]))
    return f"{text}\n      {result.hint}" if result.hint and result.state == FAILED else text


def summary(results: Iterable[Result]) -> str:
    """How many checks ended how, in words."""
    states = [result.state for result in results]
    counts = {"ok": OK, "failed": FAILED, "skipped": SKIPPED}
    return f"{len(states)} checks: " + ", ".join(f"{states.count(state)} {word}" for word, state in counts.items())
