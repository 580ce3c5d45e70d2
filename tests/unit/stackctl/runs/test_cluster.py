"""The handle of a run on a cluster, against what a real one said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.runs import claim_reader, cluster, store
from stackctl.runs.claim_reader import File, Kept, Source
from stackctl.runs.cluster import ClusterRun, GoneRun
from stackctl.runs.handle import Lines
from stackctl.runs.store import Record
from stackctl.runs.watch import Run

T = TypeVar("T")


class Said:
    """A cluster as it was, with two lines in each log."""

    context, host = "", "https://there"

    def __init__(self, name: str) -> None:
        self.rows: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / f"{name}.json").read_text())
        self.rows["job"]["metadata"]["uid"] = "u"
        self.deleted: list[str] = []

    def get(self, kind: str, _name: str, _namespace: str = "") -> Any:
        owner = {"metadata": {"uid": "s", "ownerReferences": [{"uid": "u"}]}}
        return self.rows["job"] if kind == "Job" else owner

    def items(self, kind: str, of: type[T], _namespace: str = "", **_query: str) -> list[T]:
        return msgspec.convert(self.rows["pods" if kind == "Pod" else "events"], list[of])  # type: ignore[valid-type]

    @contextmanager
    def lines(self, path: str, _query: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        node = path.split("/")[-2].rsplit("-", 2)[-2]
        yield iter([f"2026-11-22T06:00:0{n}Z [{node}] step {n}".encode() for n in (1, 2)])

    def served(self, _group: str) -> str:
        return ""

    def read(self, _path: str, _of: type[T]) -> T:
        raise ApiError("nothing of the kind is served", status=404)

    def delete(self, kind: str, name: str, _namespace: str, *, uid: str) -> bool:
        self.deleted.append(f"{kind} {name} {uid}")
        return True


def run_of(said: Said, told: list[str]) -> ClusterRun:
    about = said.rows["job"]["metadata"]
    job = jobs.make(name=about["name"], arguments=["true"], nodes=said.rows["job"]["spec"]["completions"])
    return ClusterRun(Run(cast(Cluster, said), job.name, "team", job, "u"), told.append)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the run that failed, as its submission left it."""
    monkeypatch.setenv("STACK_RUNS", str(tmp_path))
    name: str = Said("rank-failed").rows["job"]["metadata"]["name"]
    store.create(tmp_path / name, jobs.make(name=name, arguments=["true"], nodes=2), resume=False)
    record = Record(name=name, backend="kubernetes", attempt=1, started="then", namespace="team")
    store.write_json(tmp_path / name / "run.json", record)
    return tmp_path / name


def test_a_run_that_failed_is_told_and_written_down(folder: Path) -> None:
    told: list[str] = []
    run = run_of(Said("rank-failed"), told)
    status = run.status()
    assert status.text.splitlines()[0].startswith(f"{run.name}: failed, attempt 1 of 1 (2 nodes x 1 rank")
    assert status.text.splitlines()[2].split() == ["NODE", "STATE", "HOST", "POD"]
    assert "ValueError: loss is nan" in run.explain().text
    outcome = run.wait()
    assert (outcome.state, told) == ("failed", [])
    assert outcome.hint == f"attempt 1 of 1; {run.name} is kept until you remove it: stackctl cancel {run.name}"
    record = store.read_record(folder)
    assert record
    assert (record.state, record.exit_code) == ("failed", 3)


def test_its_logs_are_printed_until_it_has_ended(folder: Path) -> None:
    run = run_of(Said("rank-failed"), [])
    assert list(run.logs(Lines(rank=1))) == [b"[1] step 1", b"[1] step 2"]
    followed: list[bytes] = []
    run.wait(followed.append)
    assert sorted(followed) == [b"[0] step 1", b"[0] step 2", b"[1] step 1", b"[1] step 2"]
    assert (folder / "logs" / "attempt-1" / "rank-1.log").read_text() == "step 1\nstep 2\n"
    with pytest.raises(InvalidInput, match="the newest attempt is 1"):
        list(run.logs(Lines(attempt=2)))


def test_what_the_cluster_has_lost_of_a_log_comes_from_the_folder(folder: Path) -> None:
    told: list[str] = []
    run, kept = run_of(Said("rank-failed"), told), folder / "logs" / "attempt-1"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "rank-1.log").write_text("step 0\nstep 1\n")
    (kept / "rank-0.log").write_text("step 1\n")
    assert list(run.logs(Lines(rank=1))) == [b"[1] step 0", b"[1] step 1", b"[1] step 2"]
    assert told == [f"note: the cluster has only the end of the log of node 1, if any; its start is from {folder}"]
    assert list(run.logs(Lines(rank=0))) == [b"[0] step 1", b"[0] step 2"]
    assert len(told) == 1
    run.wait(lambda _line: None)
    assert [path.read_text() for path in sorted(kept.iterdir())] == ["step 1\nstep 2\n", "step 0\nstep 1\nstep 2\n"]


def test_what_was_followed_of_another_pod_is_not_put_before_a_log(folder: Path) -> None:
    """A job that was suspended starts to count its attempts anew."""
    told: list[str] = []
    kept = folder / "logs" / "attempt-1"
    kept.mkdir(parents=True, exist_ok=True)
    (kept / "rank-1.log").write_text("step 1 of yesterday\n")
    assert list(run_of(Said("rank-failed"), told).logs(Lines(rank=1))) == [b"[1] step 1", b"[1] step 2"]
    assert told == []


def test_logs_of_pods_that_are_gone_are_those_that_were_followed(folder: Path) -> None:
    said, told = Said("rank-failed"), list[str]()
    run = run_of(said, told)
    run.wait(lambda _line: None)
    said.rows["pods"] = []
    assert list(run.logs(Lines(rank=1))) == [b"[1] step 1", b"[1] step 2"]
    assert "as they were followed" in told[-1]


def test_a_run_that_waits_is_cancelled(folder: Path) -> None:
    said = Said("unschedulable")
    run = run_of(said, [])
    assert f"`stackctl explain {run.name}` says why it waits" in run.status().text
    assert run.cancel() == f"{run.name}: cancelled"
    assert said.deleted == [f"Job {run.name} u"]


FILES = (
    File("failure.json", 0, 9e9, '{"exit_code": 3, "sentence": "rank 1 failed first", "reason": "rank-failed"}'),
    File("logs/attempt-2/rank-0.log", 5, 9e9, "step 9\n"),
    File("logs/attempt-2/rank-1.log", 0, 9e9, "boom\n"),
)
POD = {
    "containers": [{"image": "mine:1", "volumeMounts": [{"mountPath": "/out", "name": "out"}]}],
    "volumes": [{"name": "out", "persistentVolumeClaim": {"claimName": "shared"}}],
}


@pytest.fixture
def claim(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What was asked of the claim of a run that failed; the pod that reads it is not part of this."""
    asked: list[tuple[int, str]] = []

    def read(_cluster: Cluster, source: Source, *, attempt: int, pattern: str) -> Kept:
        assert (source.namespace, source.claim) in {("default", "shared"), ("team", "shared")}
        asked.append((attempt, pattern))
        return Kept(2, FILES if pattern else FILES[:1])

    monkeypatch.setattr(claim_reader, "read", read)
    return asked


def test_of_a_run_whose_pods_are_gone_its_claim_tells(folder: Path, claim: list[tuple[int, str]]) -> None:
    said, told = Said("rank-failed"), list[str]()
    said.rows["pods"] = []
    run = run_of(said, told)
    assert list(run.logs(Lines())) == []
    assert told[0].startswith("note: gone with their pods: the logs of node 0, 1; --volume keeps")
    assert told[1] == "nothing printed; `stackctl status r-rank` says why"
    said.rows["job"]["spec"]["template"] = {"spec": POD}
    assert "  rank 1 failed first" in run.status().text
    assert run.explain().text.startswith("r-rank: failed, attempt 2 of 2\nr-rank: rank 1 failed first")
    assert list(run.logs(Lines(rank=1))) == [b"[1] boom"]
    assert claim == [(0, ""), (0, ""), (0, "rank-1")]
    assert told[-1] == "note: logs/attempt-2/rank-0.log: its end only; the claim has all of it"


def test_of_a_run_that_is_gone_its_claim_tells(
    folder: Path, claim: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "Cluster", lambda _context: None)
    before = store.read_record(folder)
    assert before
    run = GoneRun(folder, msgspec.structs.replace(before, claim="shared", started="2026-11-22T06:00:00Z"), print)
    outcome = run.wait()
    assert (outcome.state, outcome.text) == ("failed", "rank 1 failed first")
    record = store.read_record(folder)
    assert record
    assert (record.state, record.attempt, record.exit_code) == ("failed", 2, 3)
    with pytest.raises(InvalidInput, match="no such logs were kept"):
        list(run.logs(Lines(attempt=1, rank=0)))
    assert list(run.logs(Lines())) == [b"[0] step 9", b"[1] boom"]
    assert claim[:2] == [(0, ""), (1, "rank-0")]
