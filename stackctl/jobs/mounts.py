"""What pods see beside claims of their own: folders of their node, ConfigMaps, Secrets, parts of a claim. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

import msgspec

from stackctl.errors import InvalidInput, did_you_mean

Kind = Literal["host", "claim", "configmap", "secret"]
KINDS: tuple[str, ...] = get_args(Kind)

_FORM = "must be KIND:SOURCE:PATH[:ro]"
_EXAMPLES = "as host:/scratch:/scratch, claim:data/books:/data:ro, configmap:settings/a.yaml:/settings/a.yaml"
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class Mount(msgspec.Struct, frozen=True):
    """A source and where pods see it. `part` is a path below the source, empty for all of it."""

    kind: Kind
    name: str
    part: str
    path: str
    read_only: bool

    @property
    def source(self) -> tuple[str, str]:
        """What tells volumes apart: one that is mounted in parts is one volume, or the kubelet waits for ever."""
        return self.kind, self.name


def parse(given: Sequence[str], taken: Sequence[str], volumes: Mapping[str, str]) -> tuple[Mount, ...]:
    """The mounts of `--mount KIND:SOURCE:PATH[:ro]`.

    Args:
        taken: Folders of the pods that have a use.
        volumes: Path -> what is mounted there already.

    Raises:
        InvalidInput: One is none, or its path has a use.
    """
    found: list[Mount] = []
    for text in given:
        where = f"--mount {text}"
        kind, name, part, read_only, path = _words(text, where)
        others = {**volumes, **{row.path: row.name for row in found}}
        path = point(where, path, taken, others)
        found.append(Mount(kind, name, part, path, read_only))
    return tuple(found)


def point(where: str, text: str, taken: Sequence[str], others: Mapping[str, str]) -> str:
    """The path at which something may be mounted.

    Args:
        others: Path -> what is mounted there.

    Raises:
        InvalidInput: It is no path, or has a use.
    """
    path = str(PurePosixPath(text))
    if not path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise InvalidInput("the path must be absolute", where=where)
    if path == "/" or any(within(path, folder) for folder in taken):
        raise InvalidInput(f"{path} has a use already", where=where, hint="choose another path, as /data")
    for other, name in others.items():
        if within(path, other) or within(other, path):
            raise InvalidInput(f"clashes with {name} at {other}", where=where, hint="give each its own path")
    return path


def within(path: str, folder: str) -> bool:
    """Whether a path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _words(text: str, where: str) -> tuple[Kind, str, str, bool, str]:
    words = text.split(":")
    read_only = words[-1] == "ro" and len(words) > 3
    words = words[:-1] if read_only else words
    if len(words) != 3 or not all(words):
        raise InvalidInput(_FORM, where=where, hint=_EXAMPLES)
    kind, source, path = words
    if kind not in KINDS:
        raise InvalidInput(f"{kind!r} is no kind of source", where=where, hint=did_you_mean(kind, KINDS))
    if kind == "host":
        if not source.startswith("/") or ".." in PurePosixPath(source).parts:
            raise InvalidInput("a folder of the node is an absolute path", where=where, hint=_EXAMPLES)
        return "host", str(PurePosixPath(source)), "", read_only, path
    name, _, part = source.partition("/")
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"a {kind}'s name has lower-case letters, digits, dashes and dots", where=where)
    if part and (part.startswith("/") or ".." in PurePosixPath(part).parts):
        raise InvalidInput("what is below a source is a relative path without ..", where=where, hint=_EXAMPLES)
    checked: Kind = "claim" if kind == "claim" else "secret" if kind == "secret" else "configmap"
    return checked, name, part.rstrip("/"), read_only or checked != "claim", path


def named(mounts: Iterable[Mount], claims: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Source -> the name of its volume in the pod.

    Args:
        claims: Claim -> the name of its volume, of those that the pod has anyway.
    """
    names = {("claim", claim): name for claim, name in claims.items()}
    for mount in mounts:
        names.setdefault(mount.source, f"mount-{len(names) - len(claims)}")
    return names


def volumes(mounts: Sequence[Mount], claims: Mapping[str, str]) -> list[dict[str, Any]]:
    """The pod's volumes for them, as Kubernetes has them."""
    rows = []
    for (kind, name), volume in named(mounts, claims).items():
        if kind == "claim" and name in claims:
            continue
        source: dict[str, Any] = {
            # Without a type a folder that is not there would be made, empty, by whoever starts the pod.
            "host": {"hostPath": {"path": name, "type": "Directory"}},
            "claim": {"persistentVolumeClaim": {"claimName": name}},
            "configmap": {"configMap": {"name": name}},
            "secret": {"secret": {"secretName": name}},
        }[kind]
        rows.append({"name": volume, **source})
    return rows


def points(mounts: Sequence[Mount], claims: Mapping[str, str]) -> list[dict[str, Any]]:
    """A container's `volumeMounts` for them."""
    names = named(mounts, claims)
    return [
        {
            "name": names[mount.source],
            "mountPath": mount.path,
            **({"subPath": mount.part} if mount.part else {}),
            **({"readOnly": True} if mount.read_only else {}),
        }
        for mount in mounts
    ]
