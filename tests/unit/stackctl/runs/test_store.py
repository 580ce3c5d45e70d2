from __future__ import annotations

import errno
import json
import math
import stat
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from stackctl.errors import InvalidInput, MissingHere, NameTaken
from stackctl.jobs import job as jobs
from stackctl.runs import store, summary

JOB = jobs.make(name="a", workload="gpt")


def test_a_run_has_a_folder_with_its_job(tmp_path: Path) -> None:
    assert store.create(tmp_path / "runs" / "a", JOB, resume=False) == 1
    written = store.read_json(tmp_path / "runs" / "a" / "job.json")
    assert written is not None
    assert written["command"] == ["python", "-P", "-m", "stackrt.train.gpt"]


def test_a_folder_with_a_run_is_taken_unless_it_is_resumed(tmp_path: Path) -> None:
    store.create(tmp_path, JOB, resume=False)
    with pytest.raises(NameTaken, match="--resume"):
        store.create(tmp_path, JOB, resume=False)
    store.write_json(tmp_path / "run.json", store.Record(name="a", backend="local", attempt=1, started="x"))
    (tmp_path / "result.json").write_text("{}")
    assert store.read_job(tmp_path) == JOB
    assert store.create(tmp_path, JOB, resume=True) == 2
    assert not (tmp_path / "result.json").exists(), "an earlier attempt's result is not this one's"
    assert (tmp_path / "logs" / "attempt-1" / "result.json").exists()


def test_of_two_that_take_a_folder_at_once_one_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".job.json.4321").touch()  # the other is at it, or was killed
    listed = Path.iterdir

    def between(folder: Path) -> object:
        found = list(listed(folder))
        (tmp_path / "job.json").write_text("{}")  # now it has it
        (tmp_path / "logs").mkdir(exist_ok=True)
        return found

    monkeypatch.setattr(Path, "iterdir", between)
    with pytest.raises(NameTaken):
        store.create(tmp_path, JOB, resume=False)
    with pytest.raises(NameTaken, match="--resume"):
        store.create(tmp_path, JOB, resume=False)
    monkeypatch.undo()
    (tmp_path / "job.json").unlink()
    (tmp_path / "logs").rmdir()
    assert store.create(tmp_path, JOB, resume=False) == 1, "what a killed one left is in nobody's way"


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InvalidInput, match="is no run's folder"):
        store.create(tmp_path, JOB, resume=False)
    with pytest.raises(InvalidInput, match="is no run's folder"):
        store.create(tmp_path / "thesis.tex", JOB, resume=False)
    with pytest.raises(InvalidInput, match="there is no run to resume"):
        store.read_job(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_read_json_of_something_broken_is_none(tmp_path: Path) -> None:
    assert store.read_json(tmp_path / "absent.json") is None
    (tmp_path / "half.json").write_text('{"a": ')
    assert store.read_json(tmp_path / "half.json") is None
    (tmp_path / "list.json").write_text("[1]")
    assert store.read_json(tmp_path / "list.json") is None


def test_a_result_may_hold_what_python_writes_for_a_loss_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"first_train_loss": 5.5, "last_train_loss": math.nan}))
    result = store.read_json(tmp_path / "result.json")
    assert result
    assert summary.training(result) == ["  train loss   5.500 -> nan"]
    assert json.loads(store.to_json(result))["last_train_loss"] is None


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("gpt", "gpt-1122-031500"),
        ("My Script", "my-script-1122-031500"),
        ("Größe_2", "gr--e-2-1122-031500"),
        ("…", "run-1122-031500"),
    ],
)
def test_names_of_runs_are_valid(stem: str, name: str) -> None:
    made = store.new_name(stem, datetime(2026, 11, 22, 3, 15))
    assert made == name
    jobs.make(name=made, workload="gpt")


def test_the_store_is_where_the_setting_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.home({"STACK_RUNS": str(tmp_path)}) == tmp_path
    assert store.home({}).parts[-2:] == ("stackctl", "runs")


def test_a_store_that_cannot_be_made_is_told_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingHere, match=r"file/runs/a: cannot be made: Not a directory\n  STACK_RUNS names another"):
        store.create(tmp_path / "file" / "runs" / "a", JOB, resume=False)


@pytest.mark.parametrize(
    ("uid", "sudo", "owner", "expected"),
    [
        (1001, "", 0, (1001, 1002)),
        (0, "", 0, store.IMAGE_USER),
        (0, "501", 0, (501, 20)),
        (0, "501", 1234, (501, 20)),
        (0, "", 1234, (1234, 1234)),
    ],
)
def test_containers_run_as_the_caller_and_never_as_root(
    uid: int, sudo: str, owner: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = SimpleNamespace(st_uid=owner, st_gid=owner)
    workdir = cast(Path, SimpleNamespace(stat=lambda: about))
    monkeypatch.setattr("os.getuid", lambda: uid)
    monkeypatch.setattr("os.getgid", lambda: uid and uid + 1)
    monkeypatch.setenv("SUDO_UID", sudo)
    monkeypatch.setenv("SUDO_GID", "20")
    assert store.container_user(workdir) == expected


@pytest.mark.parametrize(
    ("mode", "user", "readable", "writable"),
    [
        (0o755, (0, 0), True, True),
        (0o755, (1000, 1000), True, False),
        (0o775, (1000, 0), True, True),
        (0o777, (1000, 1000), True, True),
        (0o700, (1000, 1000), False, False),
        (0o751, (1000, 1000), False, False),
        (0o750, (1000, 0), True, False),
    ],
)
def test_what_a_user_may_do_in_a_folder(mode: int, user: tuple[int, int], readable: bool, writable: bool) -> None:
    about = SimpleNamespace(st_uid=0, st_gid=0, st_mode=mode)
    folder = cast(Path, SimpleNamespace(stat=lambda: about))
    assert (store.can_read(folder, user), store.can_write(folder, user)) == (readable, writable)


def test_a_jobs_environment_is_for_its_owners_eyes(tmp_path: Path) -> None:
    job = jobs.make(name="a", arguments=["true"], env={"WANDB_API_KEY": "secret"})
    store.create(tmp_path / "a", job, resume=False)
    assert stat.S_IMODE((tmp_path / "a" / "job.json").stat().st_mode) == store.PRIVATE


def test_a_job_that_cannot_be_written_down_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_value: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "to_json", full)
        with pytest.raises(MissingHere, match=r"job.json: cannot be written: No space left on device\n  make room"):
            store.create(tmp_path / "a", JOB, resume=False)
    assert store.create(tmp_path / "a", JOB, resume=False) == 1


def test_words_that_are_not_utf8_come_back_as_they_were(tmp_path: Path) -> None:
    job = jobs.make(name="a", arguments=["python", "donn\udce9es.txt"])
    store.create(tmp_path / "a", job, resume=False)
    assert store.read_job(tmp_path / "a") == job


def test_a_file_system_without_hard_links_holds_runs_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", none)
    assert store.create(tmp_path / "a", JOB, resume=False) == 1
    assert store.read_job(tmp_path / "a") == JOB
    with pytest.raises(NameTaken):
        store.create(tmp_path / "a", JOB, resume=False)


def on_cluster(**given: str) -> store.Record:
    row = {"name": "a", "backend": "kubernetes", "started": "2026-11-22T06:00:00+00:00", "namespace": "team"}
    return store.Record(**{**row, "context": "lab", **given}, attempt=1)  # type: ignore[arg-type]


def test_a_run_on_a_cluster_is_written_down_and_may_be_submitted_again(tmp_path: Path) -> None:
    folder, job = tmp_path / "a", jobs.make(name="a", workload="gpt")
    store.submitted(folder, job, on_cluster())
    (folder / "failure.json").write_text("{}")
    store.submitted(folder, job, on_cluster())
    assert store.read_record(folder) == on_cluster()
    assert store.read_job(folder) == job
    aside = folder / "earlier" / "2026-11-22T060000+0000"
    assert sorted(path.name for path in aside.iterdir()) == ["failure.json", "job.json", "run.json"]


def test_a_submission_that_is_repeated_is_the_same_run(tmp_path: Path) -> None:
    folder, job = tmp_path / "a", jobs.make(name="a", workload="gpt")
    store.submitted(folder, job, on_cluster(uid="1"))
    (folder / "logs").mkdir()
    store.submitted(folder, job, on_cluster(uid="1", started="2026-11-23T06:00:00+00:00"))
    assert store.read_record(folder) == on_cluster(uid="1")
    for _ in range(2):
        store.submitted(folder, job, on_cluster(uid="2"))
        assert not (folder / "logs").exists(), "an earlier run's lines are no lines of this one"
        (folder / "logs").mkdir()
        store.submitted(folder, job, on_cluster(uid="3"))
    assert len(list((folder / "earlier").iterdir())) == 4


def test_another_run_of_the_name_is_not_written_over(tmp_path: Path) -> None:
    store.submitted(tmp_path / "a", jobs.make(name="a", workload="gpt"), on_cluster())
    for other in (on_cluster(namespace="other"), on_cluster(context="cloud"), on_cluster(backend="local")):
        with pytest.raises(NameTaken):
            store.free_for(tmp_path / "a", other)
    store.free_for(tmp_path / "b", on_cluster())


def test_records_are_the_newest_first(tmp_path: Path) -> None:
    for name, day in (("a", 1), ("b", 3), ("c", 2)):
        record = on_cluster(name=name, started=f"2026-11-0{day}T00:00:00+00:00")
        store.submitted(tmp_path / name, jobs.make(name=name, workload="gpt"), record)
    (tmp_path / "no-run").mkdir()
    assert [record.name for record in store.records(tmp_path)] == ["b", "c", "a"]
    assert store.records(tmp_path / "absent") == []
