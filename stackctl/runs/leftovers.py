"""What of a run no Job owns: its manifests were applied as a dry run prints them, so it stays when the Job goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.errors import InvalidInput
from stackctl.jobs.kubernetes import MANAGED, RUN_LABEL, Manifest
from stackctl.runs import gangs, managers
from stackctl.runs.handle import Forwarded, Lines, Outcome, Tell, Told

KINDS = ("Secret", "Service", "NetworkPolicy")
"""What belongs to a run beside its Job."""


class Left(msgspec.Struct, frozen=True):
    """An object of a run that is no more, or never was whole."""

    kind: str
    uid: str

    @property
    def noun(self) -> str:
        """Its kind without group and version."""
        return self.kind.rpartition("/")[2]


def is_left(there: Manifest, name: str) -> bool:
    """Whether an object is one of a run's, and nothing will remove it with the run."""
    metadata = there["metadata"]
    labels = metadata.get("labels") or {}
    ours = {**MANAGED, RUN_LABEL: name}.items() <= labels.items()
    return ours and not metadata.get("ownerReferences") and not metadata.get("deletionTimestamp")


def find(cluster: Cluster, name: str, namespace: str) -> list[Left]:
    """What of a run no Job owns."""
    found = []
    for kind in [*KINDS, *managers.beside(cluster), *gangs.beside(cluster)]:
        there = None
        with where_allowed():  # with less than the role in k8s/base nothing can be known of these
            there = cluster.get(kind, name, namespace)
        if there is not None and is_left(there, name):
            found.append(Left(kind, there["metadata"]["uid"]))
    return found


def remove(cluster: Cluster, name: str, namespace: str, tell: Tell) -> list[str]:
    """Remove it; returns the kinds of what was removed, and tells of what may not be."""
    removed, stay = [], []
    for left in find(cluster, name, namespace):
        try:
            cluster.delete(left.kind, name, namespace, uid=left.uid)
            removed.append(left.noun)
        except ApiError as error:
            if error.status != 403:
                raise
            stay.append(left.noun)
    if stay:
        kinds = ",".join(stay).lower()
        why = f"you may not remove the run's {_and(stay)}, which no Job owns; who may: "
        tell(f"note: {why}kubectl delete {kinds} {name} -n {namespace}")
    return removed


class LeftRun:
    """A run of which only such objects are there; the handle of it, to remove them."""

    def __init__(self, cluster: Cluster, name: str, namespace: str, found: list[Left], tell: Tell) -> None:
        self.name = name
        self._cluster, self._namespace, self._found, self._tell = cluster, namespace, found, tell

    def status(self) -> Told:
        """What is there of it."""
        kinds = [left.noun for left in self._found]
        text = f"{self.name}: {self._sentence(kinds)}"
        return Told(text, {"name": self.name, "namespace": self._namespace, "state": "gone", "left": kinds})

    def explain(self) -> Told:
        """The same."""
        return self.status()

    def logs(self, chosen: Lines, *, follow: bool = False) -> Iterator[bytes]:
        """There are none."""
        raise InvalidInput(self._sentence([left.noun for left in self._found]), where=self.name)

    def wait(self, put: Callable[[bytes], None] | None = None, seconds: float | None = None) -> Outcome:
        """It has no end."""
        raise InvalidInput(self._sentence([left.noun for left in self._found]), where=self.name)

    def cancel(self) -> str:
        """Remove what is there."""
        return told(self.name, remove(self._cluster, self.name, self._namespace, self._tell))

    def execute(self, rank: int, command: Sequence[str] = (), *, tty: bool = False) -> int:
        """Nothing of it runs."""
        raise InvalidInput(self._sentence([left.noun for left in self._found]), where=self.name)

    def forward(self, rank: int, port: int, *, local: int | None = None) -> AbstractContextManager[Forwarded]:
        """Nothing of it runs."""
        raise InvalidInput(self._sentence([left.noun for left in self._found]), where=self.name)

    def _sentence(self, kinds: list[str]) -> str:
        what = f"the namespace {self._namespace} has its {_and(kinds)}, and no Job"
        return f"{what}\n  stackctl cancel {self.name} -n {self._namespace} removes them"


def told(name: str, removed: list[str]) -> str:
    """What is said where a run without a Job was cancelled."""
    return f"{name}: {_and(removed)} removed; its Job is not on the cluster" if removed else f"{name}: nothing removed"


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
