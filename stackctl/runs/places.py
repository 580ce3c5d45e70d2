"""Which folder of the store holds a run of a cluster: one for each name, namespace, context and API server.

A run of this machine has a folder of its name, `NAME`; one of a cluster has `NAME@NAMESPACE@CONTEXT`. Earlier versions
gave those of clusters a folder of their name, too, and such folders stay in use.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from stackctl.errors import MissingHere, NameTaken
from stackctl.runs import store
from stackctl.runs.store import SEPARATOR, Record, is_of_a_cluster

_LONGEST = 80
"""Characters of a part of a folder's name; a file system takes 255 in all."""


def folder(home: Path, record: Record) -> Path:
    """The folder of a run of a cluster, whether it is there yet or not."""
    own = SEPARATOR.join(map(_part, (record.name, record.namespace, record.context)))
    paths = [home / record.name, home / own, home / f"{own}{SEPARATOR}{_part(record.server)}"]
    for path in paths:
        there = store.read_record(path)
        if there is not None and store.same_place(there, record):
            return path
    # Contexts of several kubeconfigs may have one name: `default`, say.
    return paths[1] if store.read_record(paths[1]) is None else paths[2]


def of_job(home: Path, run: Record) -> Path | None:
    """The folder that a run of a cluster has in the store; None if it is not there.

    It is known by its Job, also where the context has another name now; without, as earlier versions wrote it down, by
    its place.
    """
    known = [(path, there) for path in _folders(home, run.name) if (there := store.read_record(path))]
    by_job = [path for path, there in known if there.uid and there.uid == run.uid]
    by_place = [path for path, there in known if not there.uid and store.same_place(there, run)]
    return next(iter(by_job + by_place), None)


def on_clusters(home: Path, name: str) -> list[Record]:
    """The runs of clusters that have a name, as the store knows them.

    Raises:
        InvalidInput: The record of one cannot be read.
    """
    # A run of this machine that begins at this moment has no record yet.
    begun = [path for path in _folders(home, name) if path.name != name or os.path.lexists(path / "run.json")]
    found = [store.find_record(path) for path in begun]
    return [store.named(record, name) for record in found if record is not None and is_of_a_cluster(record)]


def _folders(home: Path, name: str) -> list[Path]:
    try:
        names = os.listdir(home)  # noqa: PTH208 - a store may hold thousands
    except FileNotFoundError:
        return []
    except OSError as error:  # as of a user whose HOME is another's
        hint = "STACK_RUNS names another folder for runs"
        raise MissingHere(f"cannot be read: {error.strerror}", where=str(home), hint=hint) from None
    return [home / row for row in sorted(names) if row.partition(SEPARATOR)[0] == name]


def taken(home: Path, name: str) -> bool:
    """Whether a run of the store has this name, wherever it is."""
    return os.path.lexists(home / name) or bool(on_clusters(home, name))


def free_here(home: Path, name: str) -> None:
    """See that no run of this machine has the name of one on a cluster: nobody could tell them apart by it.

    Raises:
        NameTaken: One has.
    """
    path = home / name
    there = store.read_record(path)
    if there and is_of_a_cluster(there):
        return
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise NameTaken("this machine has a run of this name", where=str(path), hint="choose another --name")


def _part(text: str) -> str:
    plain = quote(text, safe="")
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 13]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
