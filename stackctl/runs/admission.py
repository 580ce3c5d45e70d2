"""What a namespace's limit ranges and quotas say to a pod: as the API server's admission judges it. Pure.

The order is Kubernetes' own. Amounts are filled in: requests from limits, then what the limit ranges give by default.
The pod is then validated, held against each limit range, and last against each quota (LimitRanger and ResourceQuota in
its source). `refused.py` reads what it has said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from stackctl.jobs import quantity
from stackctl.jobs.kubernetes import COUNTED
from stackctl.runs.bounds import Container, LimitRange, LimitRow, PodSpec, Quota, Resources, Scope

Amounts = dict[str, float]
"""Resource -> cores, bytes or pieces."""

Kind = Literal["invalid", "limit range", "unsaid", "quota", "too small"]
"""What refuses: validation, a limit range, a quota for want of an amount, since too little is left, or ever was."""

OPTIONS = {
    "cpu": "--cpu",
    "requests.cpu": "--cpu",
    "limits.cpu": "--cpu-limit",
    "memory": "--memory",
    "requests.memory": "--memory",
    "limits.memory": "--memory",
    "ephemeral-storage": "--ephemeral-storage",
    "requests.ephemeral-storage": "--ephemeral-storage",
    "limits.ephemeral-storage": "--ephemeral-storage",
}
"""What a quota counts -> the option that says it."""

UNSAID = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""A quota of one of these refuses each pod of which a container does not say it."""


class Refusal(NamedTuple):
    """Why pods would be refused: by whom, over which resources, in a sentence, and the options that would help."""

    kind: Kind
    source: str
    resources: tuple[str, ...]
    sentence: str
    options: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentence, and which options."""
        return f"{self.sentence}: use {' and '.join(self.options)}" if self.options else self.sentence


def judge(
    pod: PodSpec, ranges: Sequence[LimitRange], quotas: Sequence[Quota], *, pods: int = 1, empty: bool = False
) -> list[Refusal]:
    """Why so many pods would not be admitted; nothing if they would be. The API server says the first of them.

    Args:
        empty: As if nothing were in use yet.
    """
    full = filled(pod, ranges)
    found = list(_invalid(full, ranges, pod))
    for row in ranges:
        found += _out_of_range(full, row)
    for quota in quotas:
        found += judge_quota(full, quota, pods=pods, empty=empty)
    return found


def filled(pod: PodSpec, ranges: Sequence[LimitRange]) -> PodSpec:
    """The pod with what it does not say: a request is the limit; the rest is what limit ranges give by default."""

    def container(row: Container) -> Container:
        limits, requests = dict(row.resources.limits), {**row.resources.limits, **row.resources.requests}
        for given in ranges:
            # Within one limit range the last row counts, of several the first.
            rows = [limit for limit in given.spec.limits if limit.type == "Container"]
            limits = _merged(limit.default for limit in rows) | limits
            requests = _merged(limit.default_request for limit in rows) | requests
        return msgspec.structs.replace(row, resources=Resources(requests, limits))

    return msgspec.structs.replace(
        pod,
        containers=[container(row) for row in pod.containers],
        init_containers=[container(row) for row in pod.init_containers],
    )


def fitted(amounts: Mapping[str, Mapping[str, str]], ranges: Sequence[LimitRange]) -> dict[str, dict[str, str]]:
    """The requests and limits of a pod of one container, put within the limit ranges."""
    asked, most = _numbers(amounts["requests"]), _numbers(amounts["limits"])
    for row in (row for given in ranges for row in given.spec.limits if row.type in ("Container", "Pod")):
        ratios = _numbers(row.max_limit_request_ratio)
        lowest, highest = _numbers(row.min), _numbers(row.max)
        for name in {**lowest, **highest, **ratios}:
            if name not in most and row.type == "Container":
                continue  # the limit range has a default of its own
            low, high = lowest.get(name, 0.0), highest.get(name, math.inf)
            limit = min(max(most.get(name, low), low), high)
            asked[name] = min(max(asked.get(name, limit), low), limit)
            most[name] = min(limit, asked[name] * ratios.get(name, math.inf)) if asked[name] else limit
    return {"requests": _texts(asked), "limits": _texts(most)}


def requests(pod: PodSpec) -> Amounts:
    """What a whole pod asks for."""
    return _total(pod, [row.resources.requests for row in pod.containers], "requests")


def limits(pod: PodSpec) -> Amounts:
    """What a whole pod may use."""
    return _total(pod, [row.resources.limits for row in pod.containers], "limits")


def usage(pod: PodSpec) -> Amounts:
    """What a pod takes of quotas: the names that they count by -> the amount."""
    return {"pods": 1.0, "count/pods": 1.0, **_counted(requests(pod), limits(pod))}


def judge_quota(pod: PodSpec, quota: Quota, *, pods: int = 1, empty: bool = False) -> Iterator[Refusal]:
    """Why a quota would keep so many pods out, which are filled in already."""
    used = usage(pod)
    counted = [key for key in quota.hard if key in used or key in UNSAID or _counts_pods(key)]
    if not counted or not all(_in_scope(pod, scope) for scope in quota.scopes):
        return
    unsaid = sorted({key for row in pod.all for key in counted if key in UNSAID and key not in _said(row)})
    if unsaid:
        options = tuple(dict.fromkeys(OPTIONS[key] for key in unsaid))
        yield unsaid_by(quota.metadata.name, unsaid, options)
        return
    yield from over({key: pods * amount for key, amount in used.items()}, quota, empty=empty)


def over(wanted: Mapping[str, float], quota: Quota, *, empty: bool = False) -> Iterator[Refusal]:
    """Why a quota would not allow more of what it counts. What is not asked for may be overdrawn."""
    name = quota.metadata.name
    for key, most in quota.hard.items():
        amount, hard = wanted.get(key, 0.0), quantity.value(most)
        used = 0.0 if empty else quantity.value(quota.status.used.get(key, "0"))
        if amount and quantity.above(used + amount, hard):
            left = f"{quantity.told(key, max(hard - used, 0.0))} of {quantity.told(key, hard)} left"
            told = f"the quota {name} has {key} {left}, and the job needs {quantity.told(key, amount)}"
            yield Refusal("too small" if quantity.above(amount, hard) else "quota", name, (key,), told)


def unsaid_by(quota: str, keys: Sequence[str], options: Sequence[str]) -> Refusal:
    """A quota that wants each container to say an amount."""
    told = f"the quota {quota} counts {' and '.join(keys)}, so every pod has to say it"
    return Refusal("unsaid", quota, tuple(keys), told, tuple(options))


def judge_objects(kinds: Iterable[str], quotas: Sequence[Quota]) -> list[Refusal]:
    """Why quotas would not allow one more object of each kind: a resource with its group, as `jobs.batch`."""
    wanted = {name: 1.0 for kind in kinds for name in (f"count/{kind}", kind)}
    return [row for quota in quotas if not quota.scopes for row in over(wanted, quota)]


def _invalid(full: PodSpec, ranges: Sequence[LimitRange], given: PodSpec) -> Iterator[Refusal]:
    """Requests above limits: where one is given by default, and the other was asked for."""
    told: set[str] = set()
    for row, own in zip(full.all, given.all, strict=True):
        for name, limit in row.resources.limits.items():
            asked = row.resources.requests.get(name, "0")
            more = quantity.above(quantity.value(asked), quantity.value(limit))
            differs = not more and name not in COUNTED and quantity.value(asked) != quantity.value(limit)
            if name in told or not (more or differs):
                continue
            told.add(name)
            key = "limits.cpu" if name == "cpu" else name
            by_default = name not in own.resources.limits
            part, low = (
                ("default", f"a limit of {name} {limit} by default, and the job asks for {asked}")
                if by_default
                else ("default_request", f"a request of {name} {asked} by default, and the job's limit is {limit}")
            )
            source = next((r.metadata.name for r in ranges if any(name in getattr(x, part) for x in r.spec.limits)), "")
            options = (OPTIONS[key],) if key in OPTIONS else ()
            yield Refusal("invalid", source, (name,), f"the limit range {source} gives {low}", options)


def _out_of_range(pod: PodSpec, given: LimitRange) -> Iterator[Refusal]:
    """What of a pod is outside of a limit range: each rule once, however many containers break it."""
    told: set[tuple[str, str, str]] = set()
    whole = [("", requests(pod), limits(pod))]
    each = [(row.name, _numbers(row.resources.requests), _numbers(row.resources.limits)) for row in pod.all]
    for row in given.spec.limits:
        for _, asked, most in {"Pod": whole, "Container": each}.get(row.type, []):
            for rule, name, bound in _rules(row):
                problem = _broken(rule, name, bound, asked.get(name), most.get(name))
                if problem and (row.type, rule, name) not in told:
                    told.add((row.type, rule, name))
                    about, key = problem
                    start = f"the limit range {given.metadata.name} allows {name} of {_WORDS[rule]} {bound}"
                    option = OPTIONS.get(key if name == "cpu" else name)
                    sentence = f"{start} a {row.type.lower()}, and {about}"
                    yield Refusal("limit range", given.metadata.name, (name,), sentence, (option,) if option else ())


_WORDS = {"min": "at least", "max": "at most", "ratio": "a limit that is at most so many times the request:"}


def _rules(row: LimitRow) -> Iterator[tuple[str, str, str]]:
    for rule, bounds in (("min", row.min), ("max", row.max), ("ratio", row.max_limit_request_ratio)):
        for name, bound in bounds.items():
            yield rule, name, bound


def _broken(rule: str, name: str, bound: str, asked: float | None, most: float | None) -> tuple[str, str] | None:
    """What breaks a rule, and which of a quota's names for it is wrong; None if nothing does."""
    edge = quantity.value(bound)
    request, limit = (asked, f"requests.{name}", "is asked for"), (most, f"limits.{name}", "is the limit")
    needed = {"min": [request], "max": [limit], "ratio": [request, limit]}[rule]
    for amount, key, _ in needed:
        if amount is None or (rule == "ratio" and not amount):
            return f"no {'limit is set' if key == limit[1] else 'request is made'}", key
    if rule == "ratio":
        ratio = (most or 0.0) / (asked or 1.0)
        return (f"it is {ratio:.4g} times", limit[1]) if quantity.above(ratio, edge) else None
    for amount, key, said in (limit, request) if rule == "max" else (request, limit):
        if amount is not None and quantity.above(*((amount, edge) if rule == "max" else (edge, amount))):
            return f"{quantity.told(name, amount)} {said}", key
    return None


def _said(row: Container) -> Amounts:
    return _counted(_numbers(row.resources.requests), _numbers(row.resources.limits))


def _counted(asked: Amounts, most: Amounts) -> Amounts:
    """What quotas call the amounts of a container or pod."""
    found: Amounts = {}
    for name, amount in asked.items():
        if name in COUNTED or name.startswith("hugepages-"):
            found |= {name: amount, f"requests.{name}": amount}
        elif "/" in name:
            found[f"requests.{name}"] = amount
    return found | {f"limits.{name}": amount for name, amount in most.items() if name in COUNTED}


def _counts_pods(key: str) -> bool:
    return key.startswith(("hugepages-", "requests.hugepages-")) or (key.startswith("requests.") and "/" in key)


def _in_scope(pod: PodSpec, scope: Scope) -> bool:
    name = scope.scope_name
    effortless = not any(
        quantity.value(amount)
        for row in pod.all
        for part in (row.resources.requests, row.resources.limits)
        for key, amount in part.items()
        if key in ("cpu", "memory")
    )
    holds = {
        "Terminating": pod.active_deadline_seconds is not None,
        "NotTerminating": pod.active_deadline_seconds is None,
        "BestEffort": effortless,
        "NotBestEffort": not effortless,
        "PriorityClass": _selected(pod.priority_class_name, scope),
        "CrossNamespacePodAffinity": any(_across(term) for term in _terms(pod.affinity)),
    }
    return holds.get(name, False)


def _selected(label: str, scope: Scope) -> bool:
    if scope.operator == "In":
        return label in scope.values
    if scope.operator == "NotIn":
        return label not in scope.values  # also of a pod that has none
    return bool(label) == (scope.operator == "Exists")


def _terms(affinity: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("podAffinity", "podAntiAffinity"):
        rows = affinity.get(kind) or {}
        yield from rows.get("requiredDuringSchedulingIgnoredDuringExecution") or []
        for row in rows.get("preferredDuringSchedulingIgnoredDuringExecution") or []:
            yield row.get("podAffinityTerm") or {}


def _across(term: Mapping[str, Any]) -> bool:
    return bool(term.get("namespaces")) or term.get("namespaceSelector") is not None


def _total(pod: PodSpec, main: Sequence[Mapping[str, str]], part: str) -> Amounts:
    """Of containers that run at once the sum, of those that start before them one after the other the largest."""
    total, up, first = _sum(map(_numbers, main)), Amounts(), Amounts()
    for row in pod.init_containers:
        own = _numbers(getattr(row.resources, part))
        if row.restart_policy == "Always":
            total, up = _sum([total, own]), _sum([up, own])
        first = _most(first, up if row.restart_policy == "Always" else _sum([up, own]))
    total = _most(total, first)
    extra = _numbers(pod.overhead)
    return _sum([total, extra if part == "requests" else {name: extra[name] for name in extra if total.get(name)}])


def _sum(rows: Iterable[Amounts]) -> Amounts:
    found: Amounts = {}
    for row in rows:
        for name, amount in row.items():
            found[name] = found.get(name, 0.0) + amount
    return found


def _most(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in {**one, **other}}


def _numbers(amounts: Mapping[str, str]) -> Amounts:
    return {name: quantity.value(text) for name, text in amounts.items()}


def _texts(amounts: Amounts) -> dict[str, str]:
    """In thousandths for CPUs, else whole, as every API server takes it."""
    return {name: f"{round(1000 * x)}m" if name == "cpu" else str(int(x)) for name, x in amounts.items()}


def _merged(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        found |= row
    return found
