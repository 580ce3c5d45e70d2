from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs.merge import MERGE_KEYS, merge
from tests.support.patches import PATCHES, POD, node

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.37.0-local"


def container(patch: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = merge(POD, patch)["spec"]["containers"][0]
    return row


def lists_of_a_pod() -> dict[str, set[str | None]]:
    """Field -> the keys by which its elements are merged, wherever in a pod's schema a list of that name is."""
    definitions = json.loads((SCHEMAS / "_definitions.json").read_text())["$defs"]
    found: dict[str, set[str | None]] = {}
    seen: set[str] = set()

    def walk(schema: dict[str, Any]) -> None:
        for name, row in (schema.get("properties") or {}).items():
            if "array" in (row.get("type") or ()):  # or null
                merged = "merge" in row.get("x-kubernetes-patch-strategy", "")
                found.setdefault(name, set()).add(row.get("x-kubernetes-patch-merge-key", "") if merged else None)
            reference = (row.get("items") or row).get("$ref", "").rpartition("/")[2]
            if reference and reference not in seen:
                seen.add(reference)
                walk(definitions[reference])

    walk(json.loads((SCHEMAS / "podtemplatespec-v1.json").read_text()))
    return found


def test_lists_are_merged_as_the_schema_says() -> None:
    assert {name: keys for name, keys in lists_of_a_pod().items() if keys != {None}} == {
        name: {key} for name, key in MERGE_KEYS.items()
    }


def test_what_is_there_is_left_as_it_was() -> None:
    before = json.dumps(POD)
    for patch in PATCHES.values():
        written = json.dumps(patch)
        merge(POD, patch)
        assert json.dumps(patch) == written
    assert json.dumps(POD) == before


def test_elements_are_merged_by_their_keys_and_stay_in_their_order() -> None:
    made = container(PATCHES["variables in another order"])
    assert [(row["name"], row["value"]) for row in made["env"]] == [("B", "2"), ("C", "4"), ("A", "0")]
    assert container(PATCHES["containers by their names"])["resources"] == {"limits": {"memory": "2Gi"}}
    assert [row["containerPort"] for row in container(PATCHES["ports by their numbers"])["ports"]] == [80, 81]
    assert container(PATCHES["arguments are replaced"])["args"] == ["x"]


def test_directives() -> None:
    assert [row["name"] for row in container(PATCHES["a variable is removed"])["env"]] == ["D", "A", "C"]
    assert [row["name"] for row in container(PATCHES["variables are replaced"])["env"]] == ["D"]
    assert merge(POD, PATCHES["a volume of another kind"])["spec"]["volumes"][0].keys() == {"name", "hostPath"}
    assert merge(POD, PATCHES["a map is replaced"])["spec"]["nodeSelector"] == {"pool": "c"}


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers: every element has its name"),
        (node(env=["A=1"]), "spec.containers[node].env: every element has its name"),
        ({"spec": {"$patch": "delet"}}, "spec: $patch is replace or delete, not 'delet'"),
        (node(env=[{"name": "A", "$patch": "merge"}]), "$patch is replace or delete, not 'merge'"),
        ({"spec": {"volumes": [{"name": "shm", "$retainKeys": ["name"], "hostPath": {}}]}}, "must list every key"),
        ({"spec": {"volumes": [{"name": "shm", "$retainKeys": [{}], "hostPath": {}}]}}, "is a list of words"),
        ({"spec": {"containers": [{"name": {}}]}}, "spec.containers: every element has its name"),
        (
            {"metadata": {"finalizers": ["a"]}, "spec": {"$deleteFromPrimitiveList/containers": ["a"]}},
            "a list of words",
        ),
        (node(**{"$deleteFromPrimitiveList/args": "b"}), "is a list of words"),
        ({"spec": {"$setElementOrder/containers": [{"name": "node"}]}}, "is for programs"),
    ],
)
def test_what_is_no_patch(patch: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        merge(POD, patch)
    assert said in str(error.value)
