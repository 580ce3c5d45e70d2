from __future__ import annotations

from pathlib import Path

import pytest

from stackctl.engines import compose
from stackctl.engines.file_lock import held
from stackctl.errors import MissingHere, NameTaken
from stackctl.jobs import job as jobs
from stackctl.jobs import serving
from stackctl.runs import store
from stackctl.runs.backends.compose import Compose
from stackctl.runs.backends.local import Local

STARTED = "2026-11-22T06:00:00+00:00"


def running(folder: Path, backend: str) -> store.Record:
    store.create(folder, jobs.make(name="a", workload="gpt"), resume=False)
    record = store.Record(name="a", backend=backend, attempt=1, started=STARTED)
    store.write_json(folder / "run.json", record)
    return record


def settled(folder: Path, record: store.Record) -> store.Record:
    backend = Local() if record.backend == "local" else Compose()
    return backend.stored(folder, record, print).settle()


def fail() -> None:
    raise AssertionError("it is held")


def test_a_run_is_running_while_its_folder_is_held(tmp_path: Path) -> None:
    record = running(tmp_path / "a", "local")
    with held(tmp_path / "a", fail):
        assert settled(tmp_path / "a", record) == record
    assert settled(tmp_path / "a", record).state == "unknown"
    assert store.read_record(tmp_path / "a") == settled(tmp_path / "a", record)


def test_a_service_has_nothing_to_go_on_from(tmp_path: Path) -> None:
    service = serving.job("a", "/model", "m", host="127.0.0.1", port=8000, more=[], gpus=0, image=None)
    store.create(tmp_path / "a", service, resume=False)
    record = store.Record(name="a", backend="local", attempt=1, started=STARTED)
    told = Local().stored(tmp_path / "a", record, print).explain().text
    assert "could not write down how" in told
    assert told.endswith("start it again with `stackctl serve`")
    with pytest.raises(NameTaken) as taken:
        store.create(tmp_path / "a", service, resume=False)
    assert taken.value.hint == "choose another --name"


def test_a_failure_that_was_written_down_is_one(tmp_path: Path) -> None:
    record = running(tmp_path / "a", "local")
    store.write_json(tmp_path / "a" / "failure.json", {"exit_code": 137, "sentence": "rank 0 failed first"})
    found = settled(tmp_path / "a", record)
    assert (found.state, found.exit_code) == ("failed", 137)


@pytest.mark.parametrize(("there", "state"), [(["a-node-0-1"], "running"), ([], "unknown")])
def test_containers_go_on_without_their_stackctl(
    there: list[str], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "own", lambda _name, _file, running: there)
    assert settled(tmp_path / "a", running(tmp_path / "a", "compose")).state == state


def test_an_engine_that_does_not_answer_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_name: str, _file: Path, *, running: bool) -> list[str]:
        raise MissingHere("the engine does not answer")

    monkeypatch.setattr(compose, "own", silent)
    assert settled(tmp_path / "a", running(tmp_path / "a", "compose")).state == "running"


def test_a_look_at_a_folder_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    record = running(tmp_path / "a", "local")
    for _ in range(50):
        settled(tmp_path / "a", record)
        with held(tmp_path / "a", fail):
            pass
