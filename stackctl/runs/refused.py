"""What the API server said as it refused a pod, read back: the refusals that `admission.py` foresees. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stackctl.jobs import quantity
from stackctl.runs.admission import OPTIONS, Refusal, unsaid_by

_EXCEEDED = re.compile(r"exceeded quota: (\S+), requested: (.*?), used: (.*?), limited: (\S+)")
_UNSAID = re.compile(r"failed quota: (\S+): must specify (.*)")
_BOUND = re.compile(
    r"(minimum|maximum) (\S+) usage per (Container|Pod) is (\S+?)"
    r"(?:\.  No (request|limit) is specified|, but (request|limit) is ([^\s,\]]+))"
)
_RATIO = re.compile(
    r"(\S+) max limit to request ratio per (Container|Pod) is (\S+), but (no request|no limit|provided)"
)
_ABOVE = re.compile(r'"(\S+)": must be (?:less than or )?equal to (\S+) limit of ([^\s,\]]+)')


def read(message: str, *, pods: int = 1) -> Refusal | None:
    """The refusal that a message tells of; None if it is none of quotas, limit ranges or amounts.

    Args:
        pods: How many such pods the job wants: a quota below that is too small, whatever is in use.
    """
    return _exceeded(message, pods) or _unsaid(message) or _out_of_range(message) or _invalid(message)


def _exceeded(message: str, pods: int) -> Refusal | None:
    found = _EXCEEDED.search(message)
    if not found:
        return None
    name, (asked, used, hard) = found[1], (_amounts(found[part]) for part in (2, 3, 4))
    needs = {key: pods * asked.get(key, 0.0) for key in hard}
    never = {key for key, most in hard.items() if quantity.above(needs[key], most)}
    if never:
        told = [
            f"{key} {quantity.told(key, hard[key])} in all, and the job needs {quantity.told(key, needs[key])}"
            for key in sorted(never)
        ]
        return Refusal("too small", name, tuple(hard), f"the quota {name} allows {'; '.join(told)}")
    shown = [(key, *(quantity.told(key, row.get(key, 0.0)) for row in (used, hard, asked))) for key in hard]
    told = [f"{key} {has} of {most} in use, and each node of the job needs {one}" for key, has, most, one in shown]
    return Refusal("quota", name, tuple(hard), f"the quota {name} has {'; '.join(told)}")


def _unsaid(message: str) -> Refusal | None:
    found = _UNSAID.search(message)
    if not found:
        return None
    keys = [part.split(" for: ")[0].strip() for part in found[2].split(";")]
    return unsaid_by(found[1], keys, _options(keys))


def _out_of_range(message: str) -> Refusal | None:
    told: dict[str, str] = {}
    keys: list[str] = []
    for rule, name, per, edge, none, what, has in _BOUND.findall(message):
        words = "at least" if rule == "minimum" else "at most"
        about = f"its {what} is {has}" if has else f"it has no {none}"
        told.setdefault(name, f"{name} of {words} {edge} a {per.lower()}, and {about}")
        keys.append(f"{none or what}s.{name}")
    for name, per, edge, what in _RATIO.findall(message):
        about = "it is more" if what == "provided" else f"it has {what}"
        told.setdefault(name, f"a {name} limit of at most {edge} times the request a {per.lower()}, and {about}")
        keys.append(f"requests.{name}" if what == "no request" else f"limits.{name}")
    if not told:
        return None
    return Refusal("limit range", "", tuple(told), f"a limit range allows {'; '.join(told.values())}", _options(keys))


def _invalid(message: str) -> Refusal | None:
    told = {
        name: f"{asked} of {name} is asked for, and the limit is {most}"
        for asked, name, most in _ABOVE.findall(message)
    }
    if not told:
        return None
    sentence = f"{'; '.join(told.values())}, as a limit range sets it by default"
    return Refusal("invalid", "", tuple(told), sentence, _options(f"limits.{name}" for name in told))


def _options(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(OPTIONS[key] for key in keys if key in OPTIONS))


def _amounts(text: str) -> dict[str, float]:
    rows = (part.partition("=") for part in text.split(","))
    return {name: quantity.value(amount) for name, _, amount in rows if amount}
