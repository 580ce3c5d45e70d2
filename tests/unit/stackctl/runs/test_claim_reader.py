from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import Placement, place
from stackctl.runs import claim_script, objects
from stackctl.runs.claim_reader import File, Kept, Source, program, source_in, source_of
from stackctl.runs.store import Record
from stackrt.checks.log_codec import Unpacked


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Kept:
    """What a pod's Python makes of its command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["-c", *words])
        exec(program().replace("MOST = 16 << 20", f"MOST = {claim_script.MOST}"), {})
    unpacked = Unpacked()
    assert all(unpacked.take(line) for line in capsys.readouterr().out.splitlines())
    return msgspec.json.decode(unpacked.text, type=Kept)


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """A run's folder on a claim: two attempts of two ranks, whose output is no UTF-8."""
    for attempt in (1, 2):
        logs = tmp_path / f"logs/attempt-{attempt}"
        logs.mkdir(parents=True)
        (logs / "failure.json").write_text('{"rank": 1}')
        for rank in (0, 1):
            (logs / f"rank-{rank}.log").write_bytes(b"attempt %d \xff\n" % attempt)
    (tmp_path / "failure.json").write_text('{"rank": 1}')
    return tmp_path


def test_the_newest_attempt_is_read_to_the_byte(
    claim: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = printed(capsys, str(claim), "0", "rank-*")
    assert kept.attempt == 2
    assert kept.json("failure.json") == {"rank": 1}
    assert kept.json("result.json") is None
    folder = tmp_path_factory.mktemp("store")
    assert kept.save(folder) == []
    assert (folder / "logs/attempt-2/rank-1.log").read_bytes() == b"attempt 2 \xff\n"
    assert not (folder / "logs/attempt-1").exists()


def test_one_rank_of_an_earlier_attempt(claim: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {file.name for file in printed(capsys, str(claim), "1", "rank-1").files}
    assert names == {"failure.json", "logs/attempt-1/failure.json", "logs/attempt-1/rank-1.log"}


def test_a_run_that_kept_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, str(tmp_path / "absent"), "0", "rank-*") == Kept(1, ())


def test_of_large_logs_the_end_is_read(
    claim: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(claim_script, "MOST", 20)
    kept = printed(capsys, str(claim), "2", "rank-*")
    file = next(file for file in kept.files if file.name.endswith("rank-0.log"))
    assert (file.text, file.cut) == ("2 \xff\n", 8)
    store = tmp_path / "store"
    (store / "logs/attempt-2").mkdir(parents=True)
    (store / "logs/attempt-2/rank-0.log").write_bytes(b"all that was followed")
    assert "logs/attempt-2/rank-0.log" in kept.save(store)
    assert (store / "logs/attempt-2/rank-0.log").read_bytes() == b"all that was followed"


AS_THE_RUN = {"securityContext": kubernetes.security()}


def placed(*volumes: str, profile: profiles.Profile | None = None, gpus: int = 0) -> tuple[jobs.Job, Placement]:
    made = jobs.make(name="a", arguments=["true"], gpus=gpus)
    profile = profile or profiles.load("generic")
    return made, place(made, namespace="team", profile=profile, image="mine:1", volumes=volumes)


def job(*volumes: str, profile: profiles.Profile | None = None, gpus: int = 0) -> objects.KubeJob:
    found = kubernetes.manifests(*placed(*volumes, profile=profile, gpus=gpus), token="t")[0]
    found["metadata"]["creationTimestamp"] = "2026-11-22T06:00:00Z"
    return msgspec.convert(found, objects.KubeJob)


def test_where_a_run_keeps_its_outputs() -> None:
    assert source_of(job()) is None
    assert source_of(job("data:/data")) is None
    found = source_of(job("data:/data:ro", "ckpt"))
    assert found == Source("a", "team", "ckpt", "mine:1", 1795327200.0, AS_THE_RUN)
    about: dict[str, Any] = {"name": "a", "backend": "kubernetes", "attempt": 1, "namespace": "team", "image": "mine:1"}
    record = Record(**about, started="2026-11-22T06:00:00+00:00")
    assert source_in(record) is None
    assert source_in(msgspec.structs.replace(record, claim="ckpt", node_choice=AS_THE_RUN)) == found


@pytest.mark.parametrize("name", ["aks", "eks"])
def test_it_is_read_on_the_nodes_that_the_run_could_take(name: str) -> None:
    profile = msgspec.structs.replace(profiles.load(name), selector={"pool": "h100"})
    of_the_job = source_of(job("ckpt", profile=profile, gpus=8))
    assert of_the_job is not None
    assert of_the_job.node_choice == {
        "nodeSelector": {"pool": "h100"},
        "tolerations": [msgspec.to_builtins(row) for row in profile.with_gpus.tolerations],
        **AS_THE_RUN,
    }
    about: dict[str, Any] = {"name": "a", "backend": "kubernetes", "attempt": 1, "claim": "ckpt", "started": ""}
    record = Record(**about, node_choice=of_the_job.node_choice)
    kept = source_in(msgspec.json.decode(msgspec.json.encode(record), type=Record))
    assert kept is not None
    assert kept.node_choice == of_the_job.node_choice, "also when the Job is gone"
    on_cpus = source_of(job("ckpt", profile=profile))
    assert on_cpus is not None
    assert on_cpus.node_choice == {"nodeSelector": {"pool": "h100"}, **AS_THE_RUN}


def test_a_file_that_is_no_json_is_none() -> None:
    assert Kept(1, (File("result.json", 0, 0.0, "{"),)).json("result.json") is None
