"""What a person may ask of the pods beside what they compute with: who they are, where they go, how long. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import mounts, patch
from stackctl.jobs.mounts import Mount
from stackctl.jobs.profiles import Profile, Toleration

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

USER = 1000
"""Of our images; any uid may run them, and an image that names root would not be admitted without."""

SHORTEST_KEPT, LONGEST = 60, 366 * 24 * 3600
"""Seconds: what has ended must stay long enough for somebody to read how."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_LARGEST_ID = 2**31 - 1
_ANNOTATIONS_BYTES = 256 * 1024

SURROUNDINGS = (
    "nodeSelector",
    "tolerations",
    "imagePullSecrets",
    "serviceAccountName",
    "schedulerName",
    "securityContext",
)
"""What of a run's pods a pod beside them needs, to go where they go, and be admitted and started as they are."""

_RESERVED = {
    "stackctl.io/": "is stackctl's own",
    "batch.kubernetes.io/": "is the Job controller's own",
    "job-name": "is the Job controller's own",
    "controller-uid": "is the Job controller's own",
    "app.kubernetes.io/managed-by": "is stackctl's own: it tells runs from other objects",
    "kubectl.kubernetes.io/last-applied-configuration": "is kubectl's own",
    "kueue.x-k8s.io/queue-name": "is set by --queue",
}
"""Keys that a person may not set, or how those of a domain begin, and why."""


class PodOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, as a person writes it; `settings` checks it."""

    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: str | None = None
    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    node_selector: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    on_nodes: tuple[str, ...] = ()
    exclude_nodes: tuple[str, ...] = ()
    run_as: str | None = None
    scheduler: str | None = None
    host_network: bool = False
    mounts: tuple[str, ...] = ()
    deadline: str | None = None
    keep: str | None = None
    patch: Path | None = None


class PodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The same, checked.

    `own_user` is whether the user was asked for. `deadline` and `kept` are seconds, 0 where nothing was said, and
    `patch` is a file's content.
    """

    service_account: str = ""
    pull_secrets: tuple[str, ...] = ()
    pull_policy: str = "IfNotPresent"
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    nodes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    user: int = USER
    group: int = USER
    own_user: bool = False
    scheduler: str = ""
    host_network: bool = False
    mounts: tuple[Mount, ...] = ()
    deadline: int = 0
    kept: int = 0
    patch: dict[str, Any] | None = None


def settings(asked: PodOptions, taken: Sequence[str], volumes: Mapping[str, str]) -> PodSettings:
    """Check what a person asked for.

    Args:
        taken: Folders of the pods that have a use.
        volumes: Path -> the claim that is mounted there.

    Raises:
        InvalidInput: Something does not fit; names the option.
    """
    for option, names in (
        ("--service-account", [asked.service_account]),
        ("--image-pull-secret", asked.image_pull_secrets),
        ("--scheduler", [asked.scheduler]),
        ("--node", asked.on_nodes),
        ("--exclude-node", asked.exclude_nodes),
    ):
        for name in names:
            if name is not None and not _NAME.fullmatch(name):
                rule = "a name has lower-case letters, digits, dashes and dots, and none of the latter at its ends"
                raise InvalidInput(rule, where=f"{option} {name}")
    both = sorted(set(asked.on_nodes) & set(asked.exclude_nodes))
    if both:
        raise InvalidInput("is chosen by --node too", where=f"--exclude-node {both[0]}", hint="leave out one of them")
    if asked.image_pull_policy not in (None, *PULL_POLICIES):
        where = f"--image-pull-policy {asked.image_pull_policy}"
        raise InvalidInput(f"must be one of {', '.join(PULL_POLICIES)}", where=where)
    user, group = _user(asked.run_as) if asked.run_as is not None else (USER, USER)
    return PodSettings(
        service_account=asked.service_account or "",
        pull_secrets=tuple(dict.fromkeys(asked.image_pull_secrets)),
        pull_policy=asked.image_pull_policy or "IfNotPresent",
        labels=_pairs("--label", asked.labels),
        annotations=_annotations(asked.annotations),
        selector=_pairs("--node-selector", asked.node_selector, reserved={}),
        tolerations=tuple(_toleration(text) for text in asked.tolerations),
        nodes=tuple(dict.fromkeys(asked.on_nodes)),
        excluded=tuple(dict.fromkeys(asked.exclude_nodes)),
        user=user,
        group=group,
        own_user=asked.run_as is not None,
        scheduler=asked.scheduler or "",
        host_network=asked.host_network,
        mounts=mounts.parse(asked.mounts, taken, volumes),
        deadline=_seconds("--deadline", asked.deadline, 1) if asked.deadline is not None else 0,
        kept=_seconds("--keep", asked.keep, SHORTEST_KEPT) if asked.keep is not None else 0,
        patch=patch.load(asked.patch) if asked.patch is not None else None,
    )


def fields(chosen: PodSettings) -> dict[str, Any]:
    """What of a pod says as whom, by whose scheduler and in whose network it runs, as far as it was asked for."""
    rows = {
        "serviceAccountName": chosen.service_account,
        "imagePullSecrets": [{"name": name} for name in chosen.pull_secrets],
        "schedulerName": chosen.scheduler,
        "hostNetwork": chosen.host_network,
        # Such a pod would ask its node's name servers, which know no name of the cluster.
        "dnsPolicy": "ClusterFirstWithHostNet" if chosen.host_network else "",
    }
    return {key: value for key, value in rows.items() if value}


def node_choice(chosen: PodSettings, profile: Profile) -> dict[str, Any]:
    """What of a pod says which nodes may take it: selector, tolerations and affinity, as far as there are any."""
    tolerations = [msgspec.to_builtins(row) for row in (*profile.tolerations, *chosen.tolerations)]
    affinity = _by_name(chosen)
    rows = {
        "nodeSelector": {**profile.selector, **chosen.selector},
        "tolerations": tolerations,
        "affinity": {"nodeAffinity": affinity} if affinity else {},
    }
    return {key: value for key, value in rows.items() if value}


def _by_name(chosen: PodSettings) -> dict[str, Any]:
    if chosen.nodes:  # any of the terms
        terms = [[{"key": "metadata.name", "operator": "In", "values": [name]}] for name in chosen.nodes]
    elif chosen.excluded:  # all of one term
        terms = [[{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in chosen.excluded]]
    else:
        return {}
    selector = {"nodeSelectorTerms": [{"matchFields": term} for term in terms]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": selector}


def surroundings(pod: dict[str, Any]) -> dict[str, Any]:
    """What a pod of ours beside a run's pod takes over from it, as far as there is any."""
    chosen = {key: pod[key] for key in SURROUNDINGS if pod.get(key)}
    nodes = (pod.get("affinity") or {}).get("nodeAffinity")
    return {**chosen, **({"affinity": {"nodeAffinity": nodes}} if nodes else {})}


def _pairs(option: str, given: Sequence[str], reserved: Mapping[str, str] = _RESERVED) -> dict[str, str]:
    """`KEY=VALUE` of labels."""
    found = _split(option, given, reserved)
    for key, value in found.items():
        if not _LABEL_VALUE.fullmatch(value):
            raise InvalidInput(
                "a label's value has letters, digits, dashes, dots and underscores, 63 at most",
                where=f"{option} {key}={value}",
                hint="--annotation takes any text" if option == "--label" else "",
            )
    return found


def _annotations(given: Sequence[str]) -> dict[str, str]:
    found = _split("--annotation", given, _RESERVED)
    if sum(len(key.encode()) + len(value.encode()) for key, value in found.items()) > _ANNOTATIONS_BYTES:
        raise InvalidInput("all of them may have 256 KiB", where="--annotation", hint="put it into a ConfigMap")
    return found


def _split(option: str, given: Sequence[str], reserved: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        where = f"{option} {text}"
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput("must be KEY=VALUE", where=where)
        _check_key(key, where)
        for start, why in reserved.items():
            if key == start or (start.endswith("/") and key.startswith(start)):
                raise InvalidInput(f"{key} {why}", where=where)
        if found.get(key, value) != value:
            raise InvalidInput(f"{key} is set twice", where=where)
        found[key] = value
    return found


def _check_key(key: str, where: str) -> None:
    domain, slash, name = key.rpartition("/")
    if not _KEY.fullmatch(name) or (slash and not _NAME.fullmatch(domain)):
        rule = "a key has letters, digits, dashes, dots and underscores, 63 at most, and may have a domain before a /"
        raise InvalidInput(rule, where=where, hint="for example team=vision or example.com/team=vision")


def _toleration(text: str) -> Toleration:
    where = f"--toleration {text}"
    taint, colon, effect = text.rpartition(":") if ":" in text else (text, "", "")
    if colon and effect not in EFFECTS:
        raise InvalidInput(f"an effect is one of {', '.join(EFFECTS)}", where=where)
    key, equals, value = taint.partition("=")
    _check_key(key, where)
    if not _LABEL_VALUE.fullmatch(value):
        raise InvalidInput("must be KEY[=VALUE][:EFFECT], as a taint is written", where=where)
    return Toleration(key=key, operator="Equal" if equals else "Exists", value=value, effect=effect)


def _user(text: str) -> tuple[int, int]:
    where = f"--run-as {text}"
    words = text.split(":")
    if len(words) > 2 or not all(word.isascii() and word.isdigit() and int(word[:11]) <= _LARGEST_ID for word in words):
        raise InvalidInput("must be UID[:GID]", where=where, hint="numbers, as 1000 or 1000:2000")
    uid, gid = int(words[0]), int(words[-1])
    if uid == 0:
        raise InvalidInput("training never needs root", where=where, hint="any other uid runs our images")
    return uid, gid


def _seconds(option: str, text: str, least: int) -> int:
    where = f"{option} {text}"
    found = _DURATION.fullmatch(text)
    if not found:
        raise InvalidInput("is no time", where=where, hint="write seconds, or 90m, 12h, 7d")
    seconds = int(found[1]) * _UNITS[found[2]]
    if not least <= seconds <= LONGEST:
        raise InvalidInput(f"must be from {least} to {LONGEST:,} seconds", where=where)
    return seconds
