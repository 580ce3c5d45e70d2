"""The runs that are known: one by its name, or all of them."""

from __future__ import annotations

import os

from stackctl.runs import backends, store
from stackctl.runs.backends.base import Known, ListedRun, Where, listed
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell


def find(name: str, where: Where, tell: Tell) -> RunHandle:
    """A run by its name: of the store, or of the cluster that is named or in force.

    Raises:
        NoSuchRun: There is none.
    """
    folder = store.home(os.environ) / name
    record = store.read_record(folder)
    if record and (record.backend == backends.SHARED or not where.named):
        return backends.load(record.backend).watch(Known(name, folder, record, where), tell)
    try:
        return backends.load(backends.SHARED).watch(Known(name, folder, None, where), tell)
    except NoSuchRun:
        if record is None:
            raise
        return backends.load(record.backend).watch(Known(name, folder, record, where), tell)


def runs(where: Where, tell: Tell) -> list[ListedRun]:
    """Every run as it is now, the newest first: those of the store, and those that the cluster has beside them."""
    records = store.records(store.home(os.environ))
    found = {record.name: listed(record) for record in records}
    names = frozenset(found)
    for backend in backends.BACKENDS:
        mine = [record for record in records if record.backend == backend]
        own = {record.name for record in mine}
        for row in backends.load(backend).runs(mine, where, tell):
            if row.name in own or row.name not in names:
                found[row.name] = row
    return sorted(found.values(), key=lambda row: row.started, reverse=True)
