from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import InvalidInput
from stackctl.jobs import kubernetes
from stackctl.runs import leftovers
from stackctl.runs.handle import Lines

OURS = {**kubernetes.MANAGED, kubernetes.RUN_LABEL: "a"}
OWNER = {"ownerReferences": [{"uid": "u"}]}


class Holding:
    """A cluster that has some objects, and lets some be removed."""

    def __init__(self, rows: dict[str, dict[str, Any]], locked: tuple[str, ...] = ()) -> None:
        self.rows, self.locked, self.trainer, self.groups = rows, locked, False, False

    def get(self, kind: str, _name: str, _namespace: str) -> Any:
        if kind in self.locked and kind not in self.rows:
            raise ApiError("no", status=403)
        return {"metadata": {"uid": kind, **self.rows[kind]}} if kind in self.rows else None

    def read(self, path: str, of: type[Any]) -> Any:
        if not self.groups:
            raise ApiError("no such group", status=404)
        version = {"versions": [{"groupVersion": "scheduling.k8s.io/v9"}]}
        return msgspec.convert({"resources": [{"name": "podgroups"}]} if path.endswith("/v9") else version, of)

    def served(self, group: str) -> str:
        return f"{group}/v9" if self.trainer and group.startswith("trainer") else ""

    def delete(self, kind: str, _name: str, _namespace: str, *, uid: str) -> bool:
        if kind in self.locked:
            raise ApiError("no", status=403)
        assert uid == kind
        return bool(self.rows.pop(kind))


def test_only_what_is_of_the_run_and_of_no_job_is_removed() -> None:
    rows: dict[str, dict[str, Any]] = {
        "Secret": {"labels": OURS}, "Service": {"labels": OURS, **OWNER}, "NetworkPolicy": {"labels": {}},
    }  # fmt: skip
    there = Holding(rows)
    assert leftovers.remove(cast(Cluster, there), "a", "team", print) == ["Secret"]
    assert sorted(there.rows) == ["NetworkPolicy", "Service"]
    other = Holding({"Secret": {"labels": {**OURS, kubernetes.RUN_LABEL: "b"}}})
    assert leftovers.find(cast(Cluster, other), "a", "team") == []


def test_what_a_train_job_names_goes_with_it() -> None:
    kind = "trainer.kubeflow.org/v9/TrainingRuntime"
    there = Holding({kind: {"labels": OURS}})
    assert leftovers.remove(cast(Cluster, there), "a", "team", print) == []
    there.trainer = True
    assert leftovers.remove(cast(Cluster, there), "a", "team", print) == ["TrainingRuntime"]
    assert there.rows == {}


def test_the_group_of_a_gang_goes_with_it() -> None:
    there = Holding({"scheduling.k8s.io/v9/PodGroup": {"labels": OURS}})
    there.groups = True
    assert leftovers.remove(cast(Cluster, there), "a", "team", print) == ["PodGroup"]


def test_what_may_not_be_removed_is_told_with_the_command_that_does() -> None:
    told: list[str] = []
    there = Holding({"Secret": {"labels": OURS}, "Service": {"labels": OURS}}, ("Secret", "NetworkPolicy"))
    assert leftovers.remove(cast(Cluster, there), "a", "team", told.append) == ["Service"]
    assert told == [
        "note: you may not remove the run's Secret, which no Job owns; who may: kubectl delete secret a -n team"
    ]


def test_of_a_run_that_is_not_there_this_is_said() -> None:
    there = cast(Cluster, Holding({kind: {"labels": OURS} for kind in leftovers.KINDS}))
    run = leftovers.LeftRun(there, "a", "team", leftovers.find(there, "a", "team"), print)
    said = "the namespace team has its Secret, Service and NetworkPolicy, and no Job"
    assert run.status() == run.explain()
    assert run.status().text == f"a: {said}\n  stackctl cancel a -n team removes them"
    with pytest.raises(InvalidInput, match=said):
        run.wait()
    with pytest.raises(InvalidInput, match=said):
        run.logs(Lines())
    assert run.cancel() == "a: Secret, Service and NetworkPolicy removed; its Job is not on the cluster"
    assert run.cancel() == "a: nothing removed"
