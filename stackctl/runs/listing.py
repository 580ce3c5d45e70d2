"""Every run of a namespace, or of all, in a few requests, as tables that the cluster makes: small, however many.

Services are asked for beside them: there are few.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import where_allowed
from stackctl.engines.kube_paths import address
from stackctl.errors import JobFailed
from stackctl.jobs.kubernetes import SELECTOR
from stackctl.jobs.via import JOBSET_LABEL, run_name
from stackctl.runs import managers, observe, services, watch
from stackctl.runs.handle import NoSuchRun
from stackctl.runs.objects import Camel
from stackctl.runs.states import ENDED, State
from stackctl.runs.store import Record

T = TypeVar("T")

_MOST_HELD = 20
"""Runs that are looked at one by one."""

_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

_STATES: dict[str, State] = {
    "Complete": "succeeded",
    "Failed": "failed",
    "Suspended": "queued",
    "Terminating": "stopped",
}


_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class _About(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Object(msgspec.Struct, frozen=True):
    metadata: _About = _About()


class _Names(msgspec.Struct, frozen=True):
    items: list[_Object]


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
    cluster, query = Cluster(context), {"labelSelector": SELECTOR, "includeObject": "None"}
    table = cluster.read(address("Job", namespace), Table, accept=_TABLE, **query)
    found = read(table, datetime.now(UTC))
    made = _made(cluster, namespace) if any(map(run_name, found)) else set()
    now = renamed(found, {name for _, name in made})
    for _, name, state in _held(cluster, namespace):
        now[name] = state, now[name][1] if name in now else ""
    return {**services.states(cluster, namespace).get(namespace, {}), **now}


def everywhere(context: str) -> dict[str, dict[str, tuple[State, str]]]:
    """Namespace -> the same, of all namespaces. Their names stand in the objects' metadata alone.

    Raises:
        ApiError: As `states`.
    """
    cluster, query = Cluster(context), {"labelSelector": SELECTOR, "includeObject": "Metadata"}
    found = by_namespace(cluster.read(address("Job"), Table, accept=_TABLE, **query), datetime.now(UTC))
    made = _made(cluster) if any(run_name(name) for rows in found.values() for name in rows) else set()
    now = {
        namespace: renamed(rows, {name for where, name in made if where == namespace})
        for namespace, rows in found.items()
    }
    for namespace, name, state in _held(cluster, ""):
        rows = now.setdefault(namespace, {})
        rows[name] = state, rows[name][1] if name in rows else ""
    served = services.states(cluster, "")
    return {place: {**served.get(place, {}), **now.get(place, {})} for place in {*now, *served}}


def unmade(context: str, records: Sequence[Record]) -> list[tuple[Record, State]]:
    """How runs fare that their cluster has through a manager, and of which it has no Job; those that it has.

    Raises:
        ApiError: As `states`.
    """
    cluster, found = Cluster(context), []
    for record in records:
        with where_allowed():
            job = managers.look(cluster, record.via, record.name, record.namespace)
            if job is not None:
                found.append((record, observe.view(job, []).state))
    return found


def _held(cluster: Cluster, namespace: str) -> list[tuple[str, str, State]]:
    """Runs that are over though their Job goes on, by namespace and name: another container keeps their pods."""
    query = {"labelSelector": SELECTOR, "fieldSelector": "status.phase=Running"}
    shown = "None" if namespace else "Metadata"
    with where_allowed():
        table = cluster.read(address("Pod", namespace), Table, accept=_TABLE, includeObject=shown, **query)
        return [(*row, state) for row in kept(table, namespace)[:_MOST_HELD] if (state := _over(cluster, *row))]
    return []


def kept(table: Table, namespace: str) -> list[tuple[str, str]]:
    """Namespace and name of runs of whose pods' containers one has ended, and another runs. Pure.

    Args:
        namespace: Of all of them; empty where the rows say theirs.
    """
    names = [column.name for column in table.column_definitions]
    found: list[tuple[str, str]] = []
    for row in table.rows:
        cells = dict(zip(names, map(str, row.cells), strict=True))
        if cells.get("Status") != "Running":
            job = cells["Name"].rsplit("-", 2)[0]
            found.append((namespace or (row.object.metadata.namespace if row.object else ""), run_name(job) or job))
    return list(dict.fromkeys(found))


def _over(cluster: Cluster, namespace: str, name: str) -> State | None:
    """How a run has ended; None if it has not, or is not there any more."""
    try:
        state = watch.view(watch.find(cluster, name, namespace)).state
    except (NoSuchRun, JobFailed):
        return None
    return state if state in ENDED else None


def _made(cluster: Cluster, namespace: str = "") -> set[tuple[str, str]]:
    """The Jobs, by namespace and name, that managers have made of runs."""
    selector = f"{SELECTOR},{JOBSET_LABEL}"
    rows = cluster.read(address("Job", namespace), _Names, accept=_METADATA, labelSelector=selector).items
    return {(row.metadata.namespace, row.metadata.name) for row in rows}


def renamed(rows: Mapping[str, T], made: Collection[str]) -> dict[str, T]:
    """Rows by the names of runs: those of Jobs that managers have made have others. Pure."""
    return {run_name(name) if name in made else name: row for name, row in rows.items()}


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
