from datetime import UTC, datetime

import msgspec
import pytest

from stackctl.runs import listing

NOW = datetime(2026, 11, 22, 6, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "started"),
    [("30s", "2026-11-22T06:00"), ("3m20s", "2026-11-22T05:57"), ("5h3m", "2026-11-22T00:57"),
     ("2d5h", "2026-11-20T01:00"), ("1y", "2025-11-22T06:00"), ("<invalid>", "2026-11-22T06:00")],
)  # fmt: skip
def test_an_age_gives_the_time(age: str, started: str) -> None:
    assert listing.started(age, NOW) == f"{started}+00:00"


def test_of_all_namespaces_the_rows_say_theirs() -> None:
    def row(name: str, namespace: str) -> dict[str, object]:
        about = {"metadata": {"name": name, "namespace": namespace, "annotations": {}}}
        return {"cells": [name, "Complete", "5s"], "object": about}

    columns = [{"name": name} for name in ("Name", "Status", "Age")]
    sent = {"columnDefinitions": columns, "rows": [row("a", "one"), row("a", "two"), row("b", "one")]}
    found = listing.by_namespace(msgspec.convert(sent, listing.Table), NOW)
    assert {namespace: sorted(rows) for namespace, rows in found.items()} == {"one": ["a", "b"], "two": ["a"]}


def test_what_a_manager_has_made_has_the_name_of_its_run() -> None:
    rows = {"a-node-0": 1, "b-node-0": 2, "c": 3}
    assert listing.renamed(rows, {"a-node-0"}) == {"a": 1, "b-node-0": 2, "c": 3}


def test_runs_are_looked_at_of_whose_pods_a_container_has_ended() -> None:
    rows = [("a-0-x1", "NotReady"), ("a-1-x2", "Running"), ("b-node-0-0-x3", "Error"), ("b-node-0-1-x4", "Error"),
            ("c-0-x5", "Running")]  # fmt: skip
    columns = [{"name": "Name"}, {"name": "Status"}]
    table = msgspec.convert({"columnDefinitions": columns, "rows": [{"cells": row} for row in rows]}, listing.Table)
    assert listing.kept(table, "team") == [("team", "a"), ("team", "b")]


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (["Name", "Status", "Completions", "Duration", "Age"], [["a", "Complete", "2/2", "9s", "1m"],
                                                                ["b", "FailureTarget", "0/2", "", "5s"]]),
        (["Name", "Completions", "Duration", "Age"], [["a", "2/2", "9s", "1m"], ["b", "0/2", "", "5s"]]),
    ],
)  # fmt: skip
def test_older_clusters_have_no_column_for_the_state(columns: list[str], rows: list[list[str]]) -> None:
    sent = {"columnDefinitions": [{"name": name} for name in columns], "rows": [{"cells": row} for row in rows]}
    table = msgspec.convert(sent, listing.Table)
    assert {name: state for name, (state, _) in listing.read(table, NOW).items()} == {"a": "succeeded", "b": "running"}
