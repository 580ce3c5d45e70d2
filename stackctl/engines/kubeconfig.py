"""Which cluster and namespace a person means: the part of the kubeconfig that a dry run needs, read in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stackctl.errors import InvalidInput, did_you_mean

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its own credentials."""


class Context(msgspec.Struct, frozen=True):
    """A context of the kubeconfig; its name is empty inside a pod, or where there is no kubeconfig."""

    name: str
    namespace: str


def files(env: Mapping[str, str]) -> list[Path]:
    """The kubeconfig files that there are: those of KUBECONFIG, else ~/.kube/config."""
    named = env.get("KUBECONFIG") or "~/.kube/config"
    paths = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    return [path for path in paths if path.is_file()]


def current(env: Mapping[str, str], wanted: str = "") -> Context:
    """The context that is in force: `wanted`, else the current one of the first file that names one.

    Raises:
        InvalidInput: A file cannot be read, or there is no such context.
    """
    documents = [_read(path) for path in files(env)]
    name = wanted or next((str(row.current_context) for row in documents if row.current_context), "")
    contexts: dict[str, str] = {}
    for document in documents:
        for row in document.contexts or []:
            contexts.setdefault(str(row.name), str((row.context and row.context.namespace) or "default"))
    if wanted and wanted not in contexts:
        raise InvalidInput(
            "the kubeconfig has no such context", where=f"--context {wanted}", hint=did_you_mean(wanted, contexts)
        )
    if name in contexts:
        return Context(name, contexts[name])
    return Context("", _own_namespace())


def _own_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    except OSError:
        return "default"


_Word = str | int | float | None
"""YAML takes a name such as 7 for a number."""


class _Details(msgspec.Struct, frozen=True):
    namespace: _Word = None
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


def _read(path: Path) -> _File:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        document = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError) as error:
        reason = str(getattr(error, "problem", None) or getattr(error, "strerror", None) or error)
        raise InvalidInput(f"is no kubeconfig: {reason}", where=str(path)) from None
    try:
        return msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"is no kubeconfig: {error}", where=str(path)) from None
