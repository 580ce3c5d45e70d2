"""The runs that are known: one by its name, or all of them."""

from __future__ import annotations

import os

from stackctl.errors import InvalidInput, StackError
from stackctl.runs import backends, store
from stackctl.runs.backends.base import Where
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell
from stackctl.runs.store import Record


def find(name: str, where: Where, tell: Tell) -> RunHandle:
    """A run by its name: of the store, or of the cluster that is named or in force.

    Raises:
        NoSuchRun: There is none.
        InvalidInput: The store has one, and its record cannot be read.
        StackError: The store has none, and the cluster cannot be asked.
    """
    record = store.find_record(store.home(os.environ) / name)
    if record and (record.backend == backends.SHARED or not where.named):
        return backends.load(record.backend).watch(name, record, where, tell)
    try:
        return backends.load(backends.SHARED).watch(name, None, where, tell)
    except NoSuchRun:
        if record is None:
            raise
        return backends.load(record.backend).watch(name, record, where, tell)
    except StackError:
        if record is None and not where.named:
            tell(f"note: this machine has no run named {name}")
        raise


def runs(where: Where, tell: Tell) -> list[Record]:
    """Every run as it is now, the newest first: those of the store, and those that the cluster has beside them.

    Of the latter the name, state, start and namespace are known; their start to the minute at best.
    """
    lost: list[InvalidInput] = []
    stored = {record.name: record for record in store.records(store.home(os.environ), lost.append)}
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        tell(f"note: {lost[0].where}: {lost[0].message}{more}")
    found = dict(stored)
    for backend in backends.BACKENDS:
        mine = [record for record in stored.values() if record.backend == backend]
        for record in backends.load(backend).runs(mine, where, tell):
            if record.name not in stored or stored[record.name].backend == backend:
                found[record.name] = record
    return sorted(found.values(), key=lambda record: record.started, reverse=True)
