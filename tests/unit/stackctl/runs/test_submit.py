from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import NameTaken
from stackctl.jobs import job as jobs
from stackctl.jobs import profiles
from stackctl.jobs.placement import place
from stackctl.runs import preflight, store, submission, submit
from stackctl.runs.submission import Submission


class Taking:
    """A cluster that takes all that it is given; its answer to one of the objects may not come."""

    context, host, calls = "here", "https://there", 0

    def __init__(self, silent: str = "") -> None:
        self.silent = silent
        self.kinds: list[str] = []

    def create(self, manifest: Any) -> tuple[Any, list[str]]:
        self.kinds.append(manifest["kind"])
        if manifest["kind"] == self.silent:
            raise KeyboardInterrupt
        return {"metadata": {"uid": "u"}}, []

    def delete(self, kind: str, _name: str, _namespace: str, *, uid: str) -> None:
        self.kinds.append(f"no {kind} {uid}")


@pytest.fixture
def ready(tmp_path: Path) -> Submission:
    job = jobs.make(name="a", arguments=["true"], nodes=2)
    placement = place(job, namespace="team", profile=profiles.load("generic"), image="mine:1", volumes=["ckpt"])
    return submission.prepare(job, placement, None, {"STACK_RUNS": str(tmp_path)})


def test_a_submission_is_checked_made_written_down_and_told(
    ready: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "check", lambda _cluster, _ready, _skip: ["it is slow"])
    cluster, told = Taking(), list[str]()
    run = submit.submit(cast(Cluster, cluster), ready, tmp_path / "a", told.append, check=True)
    assert (run.name, run.namespace, run.uid) == ("a", "team", "u")
    assert cluster.kinds == ["Job", "Secret", "Service", "NetworkPolicy"]
    assert told[0] == "note: it is slow"
    assert told[1].startswith("note: the image mine:1 names no registry: push it under your own")
    assert told[2].startswith("a: submitted (2 nodes x 1 rank on here, namespace team)\n  stackctl logs -f a ")
    record = store.read_record(tmp_path / "a")
    assert record
    assert (record.state, record.context, record.claim, record.image) == ("running", "here", "ckpt", "mine:1")


@pytest.mark.parametrize(("silent", "left"), [("Job", ["Job"]), ("Secret", ["Job", "Secret", "no Job u"])])
def test_who_interrupts_a_submission_is_told_what_may_be_there(
    silent: str, left: list[str], ready: Submission, tmp_path: Path
) -> None:
    cluster, told = Taking(silent), list[str]()
    with pytest.raises(KeyboardInterrupt):
        submit.submit(cast(Cluster, cluster), ready, tmp_path / "a", told.append, check=False)
    assert cluster.kinds == left
    assert told[-1] == "\nif a is there, remove it with: stackctl cancel a -n team"
    assert store.read_record(tmp_path / "a") is None


def test_what_a_train_job_names_is_there_before_and_goes_with_what_could_not_be_made(
    ready: Submission, tmp_path: Path
) -> None:
    placement = msgspec.structs.replace(ready.placement, via="trainjob", api="trainer.kubeflow.org/v9")
    through = submission.prepare(ready.job, placement, None, {"STACK_RUNS": str(tmp_path)})
    cluster = Taking()
    submit.create(cast(Cluster, cluster), through)
    assert cluster.kinds == ["TrainingRuntime", "TrainJob", "Secret", "NetworkPolicy"]
    cut = Taking("TrainJob")
    with pytest.raises(KeyboardInterrupt):
        submit.create(cast(Cluster, cut), through)
    assert cut.kinds == ["TrainingRuntime", "TrainJob", "no trainer.kubeflow.org/v9/TrainingRuntime u"]


class Busy(Taking):
    """A cluster whose Trainer does not know yet of what was made a moment ago."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.left = refusals

    def create(self, manifest: Any) -> tuple[Any, list[str]]:
        if manifest["kind"] == "TrainJob" and self.left:
            self.left -= 1
            raise ApiError('spec.runtimeRef: Invalid value: TrainingRuntime "a" not found', status=403)
        return super().create(manifest)


def test_a_trainer_that_learns_late_of_a_runtime_is_asked_again(
    ready: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "LOOK_SECONDS", 0.0)
    placement = msgspec.structs.replace(ready.placement, via="trainjob", api="trainer.kubeflow.org/v9")
    through = submission.prepare(ready.job, placement, None, {"STACK_RUNS": str(tmp_path)})
    cluster = Busy(3)
    submit.create(cast(Cluster, cluster), through)
    assert cluster.kinds == ["TrainingRuntime", "TrainJob", "Secret", "NetworkPolicy"]
    monkeypatch.setattr(submit, "KNOWN_SECONDS", 0.05)
    never = Busy(10**9)
    with pytest.raises(ApiError, match="runtimeRef"):
        submit.create(cast(Cluster, never), through)
    assert never.kinds == ["TrainingRuntime", "no trainer.kubeflow.org/v9/TrainingRuntime u"]


def test_what_is_not_checked_is_told(ready: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _cluster, _ready, _skip: [])
    told: list[str] = []
    submit.submit(cast(Cluster, Taking()), ready, tmp_path / "a", told.append, check=True, skip=["room", "quota"])
    assert told[0].startswith("note: not checked beforehand: room, quota (--skip-check); `stackctl explain a`")
    told.clear()
    submit.submit(cast(Cluster, Taking()), ready, tmp_path / "b" / "a", told.append, check=False)
    assert told[0].startswith("note: not checked beforehand: anything (--no-preflight)")


def test_a_folder_that_holds_another_run_is_seen_before_anything_is_made(ready: Submission, tmp_path: Path) -> None:
    store.create(tmp_path / "a", ready.job, resume=False)
    cluster = Taking()
    with pytest.raises(NameTaken, match="this folder holds another run"):
        submit.submit(cast(Cluster, cluster), ready, tmp_path / "a", print, check=True)
    assert cluster.kinds == []


class Keeping(Taking):
    """A cluster where an earlier run's group is being removed, and stays for as long as the new run has pods."""

    def create(self, manifest: Any) -> tuple[Any, list[str]]:
        found = super().create(manifest)
        if manifest["kind"] == "PodGroup" and "no Job u" not in self.kinds:
            raise ApiError("it is there", status=409, reason="AlreadyExists")
        return found

    def get(self, kind: str, name: str, _namespace: str) -> Any:
        assert kind == "scheduling.k8s.io/v9/PodGroup"
        metadata = {"name": name, "namespace": "team", "uid": "old", "deletionTimestamp": "now"}
        return None if "no Job u" in self.kinds else {"metadata": metadata}


def test_pods_do_not_keep_the_group_of_a_run_before(ready: Submission, tmp_path: Path) -> None:
    placement = msgspec.structs.replace(ready.placement, gang="scheduling.k8s.io/v9")
    asked = submission.prepare(ready.job, placement, None, {"STACK_RUNS": str(tmp_path)})
    cluster = Keeping()
    submit.create(cast(Cluster, cluster), asked)
    whole = ["Job", "PodGroup", "Secret", "Service", "NetworkPolicy"]
    assert cluster.kinds == ["Job", "PodGroup", "no Job u", *whole]
