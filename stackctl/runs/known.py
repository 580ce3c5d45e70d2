"""The runs that are known: one by its name, or all of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from stackctl.engines import kubeconfig
from stackctl.errors import InvalidInput, StackError
from stackctl.runs import backends, places, store
from stackctl.runs.backends.base import Where
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell
from stackctl.runs.store import Record, is_of_a_cluster

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
"""What may be the name of a run, whoever has made it: neither a path, nor nothing."""


def find(name: str, where: Where, tell: Tell) -> RunHandle:
    """A run by its name: of the store, or of the cluster that is named or in force.

    Raises:
        NoSuchRun: There is none.
        InvalidInput: No run can have that name; the store has one, and its record cannot be read; or several, and none
            is chosen.
        StackError: The store has none, and the cluster cannot be asked.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput("is not the name of a run", where=repr(name), hint="`stackctl list` shows the runs")
    home = store.home(os.environ)
    here = store.find_record(home / name)
    if here and not is_of_a_cluster(here) and not where.named:
        return backends.load(here.backend).watch(name, here, where, tell)
    there = _chosen(name, places.on_clusters(home, name), where)
    try:
        return backends.load(there.backend if there else backends.SHARED).watch(name, there, where, tell)
    except NoSuchRun:
        if here is None or is_of_a_cluster(here):
            raise
        return backends.load(here.backend).watch(name, here, where, tell)
    except StackError:
        if here is None and there is None and not where.named:
            tell(f"note: this machine has no run named {name}")
        raise


def _chosen(name: str, stored: Sequence[Record], where: Where) -> Record | None:
    """Of the store's runs on clusters that have a name the one that is meant; None if it is none of them.

    Raises:
        InvalidInput: It may be several.
    """
    fitting = [
        record
        for record in stored
        if where.namespace in (None, record.namespace) and where.context in (None, record.context)
    ]
    if len(fitting) > 1:  # of contexts that have one name in two kubeconfigs, the one that is in force is meant
        known = kubeconfig.contexts(os.environ)
        in_force = [row for row in fitting if row.context not in known or row.server in ("", known[row.context].server)]
        fitting = in_force or fitting
    if len(fitting) > 1:
        rows = [
            f"  namespace {row.namespace}, context {row.context or '-'}: {row.state}, started {row.started}"
            for row in fitting
        ]
        said = "\n".join([f"is the name of {len(fitting)} runs:", *rows])
        raise InvalidInput(said, where=name, hint="choose one with --namespace (-n) or --context")
    return fitting[0] if fitting else None


def runs(where: Where, tell: Tell) -> list[Record]:
    """Every run as it is now, the newest first: those of the store, and those that the cluster has beside them.

    Of the latter the name, state, start and namespace are known; their start to the minute at best. A run of a place
    that was not asked says when it was `seen`.
    """
    lost: list[InvalidInput] = []
    stored = store.records(store.home(os.environ), lost.append)
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        tell(f"note: {lost[0].where}: {lost[0].message}{more}")
    found = [record for record in stored if record.backend not in backends.BACKENDS]
    for backend in backends.BACKENDS:
        mine = [record for record in stored if record.backend == backend]
        found += backends.load(backend).runs(mine, where, tell)
    return sorted(found, key=lambda record: record.started, reverse=True)
