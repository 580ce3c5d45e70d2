"""Whether a namespace is being deleted, as far as one may ask."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.jobs import job as jobs
from stackctl.runs import watch

ENDS = {"metadata": {"name": "team", "deletionTimestamp": "2026-11-22T06:00:00Z"}}
TERMINATED = (
    'secrets "stackctl-x" is forbidden: unable to create new content in namespace team because it is being terminated'
)


class Said:
    """A cluster with one run. A namespace that is an error may not be looked at; nothing may be created after that."""

    def __init__(self, namespace: object, created: ApiError | None = None, *, pod_ends: bool = True) -> None:
        self.namespace, self.created, self.asked = namespace, created, list[str]()
        self.deleted = {"deletionTimestamp": "2999-01-01T00:00:00Z"} if pod_ends else {}

    def get(self, kind: str, name: str, _namespace: str = "") -> Any:
        self.asked.append(kind)
        if kind == "Job":
            return {"metadata": {"name": name, "uid": "u"}}
        if isinstance(self.namespace, ApiError):
            raise self.namespace
        return self.namespace

    def items(self, _kind: str, of: type[Any], _namespace: str = "", **_query: str) -> list[Any]:
        return [msgspec.convert({"metadata": {"name": "a-0-x", **self.deleted}}, of)]

    def create(self, manifest: dict[str, Any], *, dry_run: bool) -> None:
        self.asked.append(f"{manifest['kind']} {'in thought' if dry_run else 'for real'}")
        if self.created:
            raise self.created


def ends(said: Said) -> bool:
    run = watch.Run(cast(Cluster, said), "a", "team", jobs.make(name="a", arguments=["true"]), "u")
    return watch.look(run)[0].namespace_ends


FORBIDDEN = ApiError("namespaces: you may not", status=403)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (Said(ENDS), True),
        (Said({"metadata": {"name": "team"}}), False),
        (Said(None), False),
        (Said(FORBIDDEN, ApiError(TERMINATED, status=403)), True),
        (Said(FORBIDDEN, ApiError("secrets: you may not", status=403)), False),
        (Said(FORBIDDEN), False),
    ],
)
def test_a_run_whose_pods_are_being_deleted_may_end_with_its_namespace(said: Said, found: bool) -> None:
    assert ends(said) is found
    assert "Secret for real" not in said.asked


def test_nobody_asks_while_no_pod_is_being_deleted() -> None:
    said = Said(ENDS, pod_ends=False)
    assert not ends(said)
    assert said.asked == ["Job"]
