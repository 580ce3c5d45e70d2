from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl.errors import InvalidInput
from stackctl.runs import service_request, services, serving
from stackctl.runs.objects import Pod
from stackctl.runs.services import Deployment


def deployment(*conditions: dict[str, str], **status: int) -> Deployment:
    row = {"metadata": {"name": "words", "namespace": "team", "generation": 2}, "spec": {"replicas": 2},
           "status": {"observedGeneration": 2, **status, "conditions": conditions}}  # fmt: skip
    return msgspec.convert(row, Deployment)


def pod(ready: bool = False, **container: Any) -> Pod:
    rows = [{"name": "node", "ready": ready, **container}]
    return msgspec.convert({"metadata": {"name": "words-1"}, "status": {"containerStatuses": rows}}, Pod)


UP = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
STUCK = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no progress"}


def test_a_service_is_up_once_all_its_servers_are_the_new_ones() -> None:
    assert (deployment(**UP).state, deployment(**UP).rolled_out) == ("running", True)
    changing = deployment(replicas=3, updatedReplicas=1, availableReplicas=2)
    assert (changing.state, changing.rolled_out) == ("running", False)
    assert deployment().state == "pending"
    assert deployment(STUCK).state == "failed"


def test_why_it_is_not_up_is_said_in_the_server_s_own_words() -> None:
    ended = {"terminated": {"exitCode": 78, "reason": "Error", "message": "x\nerror: /model/a: there is no such file"}}
    said = services.why(deployment(), [pod(lastState=ended, restartCount=3)])
    assert (
        said == "words-1 ended with exit code 78 (Error), 3 restarts\n  | x\n  | error: /model/a: there is no such file"
    )
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert "give it more with --memory" in services.why(deployment(), [pod(lastState=killed)])
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    assert "ImagePullBackOff: no such image" in services.why(deployment(), [pod(state=waits)])
    assert services.why(deployment(**UP), [pod(ready=True, lastState=ended)]) == ""
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    assert services.why(deployment(refused), []) == "the cluster makes no pod: exceeded quota"


def test_why_the_number_of_servers_does_not_follow_their_load_is_said() -> None:
    def scales(*conditions: dict[str, str]) -> str:
        row = {"spec": {"minReplicas": 2, "maxReplicas": 5}, "status": {"conditions": conditions}}
        return services.scales(msgspec.convert(row, services.Scaler))

    assert scales() == "their number is to follow their load (2 to 5); no controller has looked at that yet"
    able = {"type": "AbleToScale", "status": "True", "reason": "SucceededGetScale"}
    assert scales(able, {"type": "ScalingActive", "status": "True"}) == "their number follows their load (2 to 5)"
    blind = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no metrics"}
    said = "their number does not follow their load (2 to 5): no metrics\n  it needs the cluster's metrics API: "
    assert scales(able, blind).startswith(said)


GIVEN: dict[str, Any] = {
    "volume": "models", "model_name": None, "name": None, "port": None, "autoscale": None, "replicas": 1, "gpus": 0,
    "context": None, "namespace": "team", "image": None, "cpu": None, "memory": None, "profile": "generic",
    "token_file": None, "sources": (),
}  # fmt: skip


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACK_RUNS", str(tmp_path / "runs"))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'https://c'}}]\nusers: [{name: u, user: {}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return tmp_path / "runs"


def test_a_service_on_a_cluster_has_its_model_s_name() -> None:
    made = service_request.make("Mine_1/export", "stack", [], GIVEN).service
    assert (made.name, made.served, made.model) == ("mine-1", "Mine_1", "/model/Mine_1/export")
    assert "name: mine-1" in service_request.plan(service_request.make("Mine_1", "stack", [], GIVEN)).text


@pytest.mark.parametrize(
    ("word", "given", "said"),
    [
        ("mine", {"volume": None}, "a model is a path on a claim"),
        ("../mine", {}, "a model is a path on a claim"),
        ("mine", {"name": "1a"}, "--name 1a: a service's name begins with a letter"),
        ("mine", {"port": 80}, "--port: on a cluster a service has its server's own port"),
        ("mine", {"autoscale": 2, "replicas": 2}, "--autoscale 2: must be more than --replicas 2"),
        ("mine", {"memory": "lots"}, "--memory lots: is not an amount"),
        ("mine", {"token_file": Path("/nowhere")}, "--token-file /nowhere: No such file"),
        ("mine", {"model_name": "a b"}, "--model-name a b: a model's name has"),
    ],
)
def test_what_cannot_be_served_there_is_told(word: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        service_request.make(word, "stack", [], {**GIVEN, **given})


def test_a_model_here_is_a_folder_a_file_or_a_finished_run(tmp_path: Path, store: Path) -> None:
    run = store / "mine"
    run.mkdir(parents=True)
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    record = {"name": "mine", "backend": "local", "attempt": 1, "started": "2026-01-01T00:00:00+00:00"}
    (run / "run.json").write_bytes(msgspec.json.encode({**record, "state": "running"}))
    with pytest.raises(InvalidInput, match="mine: this run has not finished: it is running"):
        serving.find("mine", None)
    (run / "run.json").write_bytes(msgspec.json.encode({**record, "state": "succeeded"}))
    (run / "result.json").write_text("{}")
    assert serving.find("mine", None) == serving.Model(run / "model.keras", "mine")
    assert serving.find(str(run / "model.keras"), "digits").name == "digits"
    with pytest.raises(InvalidInput, match="no such file, folder or run"):
        serving.find("nothing", None)
    with pytest.raises(InvalidInput, match="is not a folder of versions"):
        serving.find(str(run), None, "tf-serving")
