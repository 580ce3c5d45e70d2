"""The backends: where jobs run. A row here, and a module beside it, are all that one takes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from stackctl.errors import InvalidInput, did_you_mean
from stackctl.runs.backends.base import Backend


class Row(msgspec.Struct, frozen=True):
    """A backend.

    `load` imports it, when it is used. Where ranks are in `containers` their command goes into a manifest, and they
    see no GPU that was not asked for. `run` is whether `stackctl run` offers it.
    """

    load: Callable[[], Backend]
    containers: bool = False
    run: bool = True


def _local() -> Backend:
    from stackctl.runs.backends.local import Local

    return Local()


def _compose() -> Backend:
    from stackctl.runs.backends.compose import Compose

    return Compose()


def _kubernetes() -> Backend:
    from stackctl.runs.backends.kubernetes import Kubernetes

    return Kubernetes()


BACKENDS = {
    "local": Row(_local),
    "compose": Row(_compose, containers=True),
    "kubernetes": Row(_kubernetes, containers=True, run=False),
}

SHARED = "kubernetes"
"""The one that has other people's runs: it is asked for those that the store does not have."""


def row(name: str) -> Row:
    """A backend's row.

    Raises:
        InvalidInput: There is none of that name; another version of stackctl may have it.
    """
    if name not in BACKENDS:
        raise InvalidInput(f"no backend is named {name!r}", hint=did_you_mean(name, BACKENDS))
    return BACKENDS[name]


def load(name: str) -> Backend:
    """A backend by its name; raises as `row`."""
    return row(name).load()
