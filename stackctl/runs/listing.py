"""Every run of a namespace, or of all, in one request, as a table that the cluster makes: small, however many.

Services are asked for beside them: there are few.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stackctl.engines.kube import Cluster, address
from stackctl.jobs.kubernetes import SELECTOR
from stackctl.runs import services
from stackctl.runs.objects import Camel
from stackctl.runs.states import State

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

_STATES: dict[str, State] = {
    "Complete": "succeeded",
    "Failed": "failed",
    "Suspended": "queued",
    "Terminating": "stopped",
}


class _About(msgspec.Struct, frozen=True):
    namespace: str = ""


class _Object(msgspec.Struct, frozen=True):
    metadata: _About = _About()


class _Row(msgspec.Struct, frozen=True):
    cells: list[Any]
    object: _Object | None = None


class _Column(msgspec.Struct, frozen=True):
    name: str


class Table(Camel, frozen=True):
    """What `kubectl get jobs` prints."""

    column_definitions: list[_Column]
    rows: list[_Row]


def states(context: str, namespace: str) -> dict[str, tuple[State, str]]:
    """Name -> state, and when it was submitted, as `started` tells it.

    Raises:
        ApiError: The cluster does not answer, or does not allow it.
    """
    # The objects' metadata would hold the exact times, in 4 kB a run.
    query = {"labelSelector": SELECTOR, "includeObject": "None"}
    cluster = Cluster(context)
    table = cluster.read(address("Job", namespace), Table, accept=_TABLE, **query)
    return {**services.states(cluster, namespace).get(namespace, {}), **read(table, datetime.now(UTC))}


def everywhere(context: str) -> dict[str, dict[str, tuple[State, str]]]:
    """Namespace -> the same, of all namespaces. Their names stand in the objects' metadata alone.

    Raises:
        ApiError: As `states`.
    """
    query = {"labelSelector": SELECTOR, "includeObject": "Metadata"}
    cluster = Cluster(context)
    runs = by_namespace(cluster.read(address("Job"), Table, accept=_TABLE, **query), datetime.now(UTC))
    served = services.states(cluster, "")
    return {place: {**served.get(place, {}), **runs.get(place, {})} for place in {*runs, *served}}


def by_namespace(table: Table, now: datetime) -> dict[str, dict[str, tuple[State, str]]]:
    """The same, of a table as it was at a time. Pure."""
    rows: dict[str, list[_Row]] = {}
    for row in table.rows:
        rows.setdefault(row.object.metadata.namespace if row.object else "", []).append(row)
    return {namespace: read(msgspec.structs.replace(table, rows=found), now) for namespace, found in rows.items()}


def read(table: Table, now: datetime) -> dict[str, tuple[State, str]]:
    """The same, of a table as it was at a time. Pure."""
    names = [column.name for column in table.column_definitions]
    found: dict[str, tuple[State, str]] = {}
    for row in table.rows:
        cells = dict(zip(names, map(str, row.cells), strict=True))
        done, _, all_nodes = cells.get("Completions", "").partition("/")
        said = cells.get("Status") or ("Complete" if done == all_nodes else "")  # no such column before 1.30
        found[cells["Name"]] = _STATES.get(said, "running"), started(cells.get("Age", ""), now)
    return found


_UNITS = {"y": 365 * 86_400, "d": 86_400, "h": 3600, "m": 60, "s": 1}


def started(age: str, now: datetime) -> str:
    """The time of an age such as `5h3m`: UTC, ISO 8601, to the minute, which is as exact as ages up to 8 hours are."""
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([ydhms])", age))
    return (now - timedelta(seconds=seconds)).isoformat(timespec="minutes")
