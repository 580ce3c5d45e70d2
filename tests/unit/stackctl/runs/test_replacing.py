from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackctl.errors import InvalidInput, JobFailed
from stackctl.runs import replacing, store
from stackctl.runs import serving as requests
from stackctl.runs.replacing import Service
from stackctl.runs.store import Record
from stackctl.runs.stored import StoredRun
from stackrt.serve import orders

NOTHING: dict[str, Any] = {"port": None, "token_file": None, "gpus": 0, "image": None}


@pytest.fixture
def model(tmp_path: Path) -> requests.Model:
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "weights").write_text("many numbers")
    return requests.Model(tmp_path / "second", "words")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Service]:
    """A service that seems to run."""
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))

    def make(backend: str) -> Service:
        asked = requests.request(
            requests.Model(tmp_path / "first", "words"), name="plays", where=backend, port=9000, gpus=0, image=None,
            token=None, more=(),
        )  # fmt: skip
        asked.folder.mkdir(parents=True)
        record = Record(name="plays", backend=backend, attempt=1, started="", publish=9000, workdir=str(tmp_path))
        run = StoredRun(asked.folder, record, print, where="processes", goes_on=lambda: True, job=asked.job)
        return Service(run, asked.job)

    return make


def answering(monkeypatch: pytest.MonkeyPatch, service: Service, state: orders.State, said: str = "") -> list[str]:
    """A server that looks when its client waits; gives what it was asked for."""
    file, seen = service.run.folder / requests.ORDERS, list[str]()

    def look(_seconds: float) -> None:
        order = orders.given(file)
        assert order is not None
        seen[:] = order.words
        orders.answer(file, order, state, said)

    monkeypatch.setattr(time, "sleep", look)
    return seen


def test_a_process_is_told_where_the_model_is(
    service: Callable[[str], Service], model: requests.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = service("local")
    seen = answering(monkeypatch, running, "serving")
    told = replacing.replace(running, model, "local", NOTHING, ["--max-batch", "2"], print)
    assert told.text == "plays: serves the model words at http://127.0.0.1:9000\n"
    assert (seen[0], seen[-2:]) == (str(model.path), ["--max-batch", "2"])
    assert seen[seen.index("--port") + 1] == "9000"
    assert str(model.path) in store.read_job(running.run.folder).command


def test_a_container_is_given_a_copy_and_keeps_the_newest_alone(
    service: Callable[[str], Service], model: requests.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = service("compose")
    seen = answering(monkeypatch, running, "serving")
    for _ in range(2):
        replacing.replace(running, model, "compose", NOTHING, (), print)
    (copy,) = (running.run.folder / replacing.COPIES).iterdir()
    assert seen[0] == f"/out/{replacing.COPIES}/{copy.name}/second"
    assert (copy / "second" / "weights").read_text() == "many numbers"
    answering(monkeypatch, running, "refused", "weights: is damaged")
    with pytest.raises(JobFailed, match="plays: weights: is damaged"):
        replacing.replace(running, model, "compose", NOTHING, (), print)
    assert list((running.run.folder / replacing.COPIES).iterdir()) == [copy]


@pytest.mark.parametrize(
    ("where", "given", "said"),
    [
        ("compose", {}, "--on compose: plays runs as processes"),
        ("local", {"port": 9001}, "--port 9001: belongs to the service .* goes on with 9000"),
        ("local", {"image": "pytorch"}, "--image pytorch: belongs to the service .* goes on with serve"),
        ("local", {"token_file": Path("/token")}, "--token-file /token: belongs to the service .* goes on with none"),
    ],
)
def test_what_belongs_to_the_service_stays(
    service: Callable[[str], Service], model: requests.Model, where: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        replacing.replace(service("local"), model, where, NOTHING | given, (), print)
    assert re.search(said, f"{caught.value.where}: {caught.value.message}")
