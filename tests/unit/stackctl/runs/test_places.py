from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.errors import InvalidInput, MissingHere, NameTaken
from stackctl.jobs import job as jobs
from stackctl.runs import places, store
from stackctl.runs.store import Record

ARN = "arn:aws:eks:eu-west-1:123456789012:cluster/training"


def record(namespace: str = "team", context: str = "lab", server: str = "", name: str = "a") -> Record:
    return Record(
        name=name, backend="kubernetes", attempt=1, started="then",
        namespace=namespace, context=context, server=server,
    )  # fmt: skip


def written(home: Path, row: Record) -> Path:
    folder = places.folder(home, row)
    store.submitted(folder, jobs.make(name=row.name, workload="gpt"), row)
    return folder


def test_each_place_has_a_folder_of_its_own(tmp_path: Path) -> None:
    rows = [record(), record("other"), record(context=ARN), record(context=""), record(name="b")]
    folders = [written(tmp_path, row).name for row in rows]
    assert folders == [
        "a@team@lab",
        "a@other@lab",
        "a@team@arn%3Aaws%3Aeks%3Aeu-west-1%3A123456789012%3Acluster%2Ftraining",
        "a@team@",
        "b@team@lab",
    ]
    assert [written(tmp_path, row).name for row in rows] == folders, "the same again"
    assert len(places.on_clusters(tmp_path, "a")) == 4
    assert [row.name for row in store.records(tmp_path)].count("a") == 4
    assert (places.taken(tmp_path, "b"), places.taken(tmp_path, "c")) == (True, False)
    assert places.on_clusters(tmp_path / "absent", "a") == []


def test_contexts_of_one_name_that_mean_two_clusters_are_told_apart(tmp_path: Path) -> None:
    first = written(tmp_path, record(server="https://one:6443"))
    second = written(tmp_path, record(server="https://two:6443"))
    assert [first.name, second.name] == ["a@team@lab", "a@team@lab@https%3A%2F%2Ftwo%3A6443"]
    assert places.folder(tmp_path, record(server="https://one:6443")) == first
    assert places.folder(tmp_path, record()) == first, "as far as is known"


def test_a_name_of_any_length_fits_a_file_system(tmp_path: Path) -> None:
    long = [record(context="c" * 300 + end, server="https://" + "s" * 300) for end in "xy"]
    first, second = (written(tmp_path, row) for row in long)
    assert first != second
    assert len(second.name) < 255


def test_a_folder_of_an_earlier_version_stays_in_use(tmp_path: Path) -> None:
    store.submitted(tmp_path / "a", jobs.make(name="a", workload="gpt"), record())
    assert places.folder(tmp_path, record(server="https://one")) == tmp_path / "a"
    assert places.folder(tmp_path, record("other")).name == "a@other@lab"
    assert [row.namespace for row in places.on_clusters(tmp_path, "a")] == ["team"]
    places.free_here(tmp_path, "a")


def test_a_run_of_this_machine_keeps_its_name(tmp_path: Path) -> None:
    store.create(tmp_path / "a", jobs.make(name="a", workload="gpt"), resume=False)
    with pytest.raises(NameTaken, match="this machine has a run of this name"):
        places.free_here(tmp_path, "a")
    (tmp_path / "b").touch()
    with pytest.raises(NameTaken):
        places.free_here(tmp_path, "b")
    (tmp_path / "c").mkdir()
    places.free_here(tmp_path, "c")


def test_a_store_that_cannot_be_read_says_how_to_have_another(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("no folder")
    with pytest.raises(MissingHere, match=r"runs: cannot be read: Not a directory\n  STACK_RUNS names another folder"):
        places.taken(tmp_path / "runs", "a")


def test_a_run_that_begins_here_is_on_no_cluster(tmp_path: Path) -> None:
    store.create(tmp_path / "a", jobs.make(name="a", workload="gpt"), resume=False)
    assert places.on_clusters(tmp_path, "a") == []
    assert places.taken(tmp_path, "a")
    (tmp_path / "a" / "run.json").write_text("{")
    with pytest.raises(InvalidInput, match="is damaged"):
        places.on_clusters(tmp_path, "a")
