"""Which cluster and namespace a person means: the part of the kubeconfig that a dry run needs, read in milliseconds."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from stackctl import folders
from stackctl.errors import InvalidInput, did_you_mean
from stackrt.launch.environment import is_loopback

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its own credentials."""


class Context(msgspec.Struct, frozen=True):
    """A context of the kubeconfig; its name is empty inside a pod, or where there is no kubeconfig.

    `server` is the address of its API server, as far as is known.
    """

    name: str
    namespace: str
    server: str = ""


def files(env: Mapping[str, str]) -> list[Path]:
    """The kubeconfig files that there are: those of KUBECONFIG, else ~/.kube/config."""
    named = env.get("KUBECONFIG") or "~/.kube/config"
    paths = [folders.expanded(part) for part in named.split(os.pathsep) if part]
    return [path for path in paths if os.path.isfile(path)]  # noqa: PTH113 - Path raises where we may not look


def filled(env: Mapping[str, str]) -> list[Path]:
    """Those of the files that say something: kubectl takes an empty one among several, and so do we.

    Raises:
        InvalidInput: A file cannot be read.
    """
    return [path for path in files(env) if _read(path) != _File()]


def lacking(env: Mapping[str, str]) -> str:
    """Why no cluster is known here, in a few words; empty if one is, by a kubeconfig or as in a pod.

    Raises:
        InvalidInput: A file cannot be read.
    """
    if filled(env) or SERVICE_ACCOUNT.is_dir():
        return ""
    named = env.get("KUBECONFIG")
    if files(env):
        return f"{named or '~/.kube/config'} is empty"
    if named and os.path.exists(named):  # noqa: PTH110 - pathlib's raises where we may not look
        return f"{named} is no regular file"
    return f"KUBECONFIG names no file: {named}" if named else "no ~/.kube/config"


def current(env: Mapping[str, str], wanted: str = "") -> Context:
    """The context that is in force: `wanted`, else the current one of the first file that names one.

    Raises:
        InvalidInput: A file cannot be read, or there is no such context.
    """
    documents = [_read(path) for path in files(env)]
    name = wanted or _current(documents)
    found = _contexts(documents)
    if name and name not in found:
        reason = lacking(env)
        message = "the kubeconfig has no such context" + (f": {reason}" if reason else "")
        hint = did_you_mean(name, found)
        if wanted:
            raise InvalidInput(message, where=f"--context {name}", hint=hint)
        others = "`kubectl config use-context NAME` sets another, and --context names one"
        raise InvalidInput(message, where=f"current-context: {name}", hint=f"{hint} {others}".strip())
    return found.get(name, Context("", _own_namespace()))


def contexts(env: Mapping[str, str]) -> dict[str, Context]:
    """Every context of the kubeconfig, by its name.

    Raises:
        InvalidInput: A file cannot be read.
    """
    return _contexts([_read(path) for path in files(env)])


IMPERSONATION = ("as", "as-uid", "as-groups", "as-user-extra")
"""Of a user: who they act as. The API server is told with each request."""


def acting_as(env: Mapping[str, str], context: str) -> list[tuple[str, str]]:
    """The headers of requests by which a context's user acts as another.

    Raises:
        InvalidInput: A file cannot be read.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
    """
    user = user_of(env, context)
    found = [("Impersonate-User", str(user["as"]))] if user.get("as") else []
    found += [("Impersonate-Uid", str(user["as-uid"]))] if user.get("as-uid") else []
    found += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or []]
    for key, values in (user.get("as-user-extra") or {}).items():
        found += [(f"Impersonate-Extra-{quote(str(key), safe='')}", str(value)) for value in values]
    return found


def user_of(env: Mapping[str, str], context: str) -> dict[Any, Any]:
    """What a kubeconfig says of the user of a context, of the current one for ""; the first of several files counts.

    Raises:
        InvalidInput: A file cannot be read.
    """
    documents = [_read(path) for path in files(env)]
    name = context or _current(documents)
    rows = [row for document in documents for row in document.contexts or [] if str(row.name) == name]
    named = str(rows[0].context.user) if rows and rows[0].context else ""
    users = [row.user for document in documents for row in document.users or [] if str(row.name) == named]
    return (users[0] if users else None) or {}


def _current(documents: Sequence[_File]) -> str:
    return next((str(row.current_context) for row in documents if row.current_context), "")


def of_this_machine(server: str) -> bool:
    """Whether the address of an API server is one that each machine has for itself."""
    try:
        return is_loopback(urlsplit(server).hostname or "")
    except ValueError:
        return False


def _contexts(documents: Sequence[_File]) -> dict[str, Context]:
    """Of several files the first that has something of a name counts."""
    servers: dict[str, str] = {}
    for row in [row for document in documents for row in document.clusters or []]:
        servers.setdefault(str(row.name), ((row.cluster and row.cluster.server) or "").rstrip("/"))
    found: dict[str, Context] = {}
    for row in [row for document in documents for row in document.contexts or []]:
        about = row.context or _Details()
        namespace, server = str(about.namespace or "default"), servers.get(str(about.cluster), "")
        found.setdefault(str(row.name), Context(str(row.name), namespace, server))
    return found


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    except OSError:
        return "default"


_Word = str | None


class _Details(msgspec.Struct, frozen=True):
    namespace: _Word = None
    cluster: _Word = None
    user: _Word = None
    server: str | None = None


class _Row(msgspec.Struct, frozen=True):
    name: _Word = None
    context: _Details | None = None
    cluster: _Details | None = None
    user: dict[Any, Any] | None = None


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    """What is read of a kubeconfig, here and by the client, which takes its shape for granted."""

    current_context: _Word = None
    contexts: list[_Row] | None = None
    clusters: list[_Row] | None = None
    users: list[_Row] | None = None


def document(path: Path) -> dict[Any, Any]:
    """All that a kubeconfig says.

    Raises:
        InvalidInput: It cannot be read, or has another shape.
    """
    found, _ = _parsed(path)
    return found or {}


def _read(path: Path) -> _File:
    return _parsed(path)[1]


def _parsed(path: Path) -> tuple[Any, _File]:
    """A file's content, parsed once for as long as it stays the same."""
    try:
        about = path.stat()
    except OSError as error:
        raise _no_kubeconfig(path, str(error.strerror)) from None
    return _parsed_at(path, about.st_mtime_ns, about.st_size, about.st_ino)


@functools.lru_cache(maxsize=64)
def _parsed_at(path: Path, *_version: int) -> tuple[Any, _File]:
    import yaml

    try:
        found = yaml.load(path.read_bytes(), Loader=_loader())  # noqa: S506 - a safe loader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(getattr(error, "problem", None) or getattr(error, "strerror", None) or error)
        raise _no_kubeconfig(path, reason) from None
    try:
        return found, _File() if found is None else msgspec.convert(found, _File)
    except msgspec.ValidationError as error:
        raise _no_kubeconfig(path, str(error)) from None


@functools.cache
def _loader() -> Any:
    """A safe loader that leaves 7 and 2026-01-31 the words that they are: names."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    left_out = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
    Loader.yaml_implicit_resolvers = {
        first: [row for row in rows if row[0] not in left_out] for first, rows in Loader.yaml_implicit_resolvers.items()
    }
    return Loader


def _no_kubeconfig(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"is no kubeconfig: {why}", where=str(path))
