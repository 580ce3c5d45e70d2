from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import profiles, serving
from stackctl.jobs import service_manifests as manifests
from stackctl.jobs.service_manifests import Serving

EVERYTHING: dict[str, Any] = {
    "token": "secret",
    "most": 5,
    "sources": ("gateway",),
    "gpus": 1,
    "more": ("--max-batch", "8"),
}


def plan(**given: Any) -> list[dict[str, Any]]:
    profile = profiles.load(given.pop("profile", "generic")).effective(gpus=bool(given.get("gpus")))
    rest = {"name": "words", "namespace": "team", "engine": "stack", "image": "registry.example/serve:1",
            "model": "/model/mine/export", "served": "mine", "claim": "models", "profile": profile}  # fmt: skip
    return manifests.manifests(Serving(**{**rest, **given}))


def container(made: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = made[0]["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("given", [{}, EVERYTHING, {"claim": ""}, *({"profile": name} for name in profiles.names())])
@pytest.mark.parametrize("engine", list(serving.SERVERS))
@pytest.mark.parametrize("version", ["1.32", "1.34", "1.37"])
def test_every_object_is_what_kubernetes_takes(given: dict[str, Any], engine: str, version: str) -> None:
    for manifest in plan(engine=engine, **given):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_service_is_a_deployment_and_what_belongs_to_it() -> None:
    kinds = [row["kind"] for row in plan()]
    assert kinds == ["Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"]
    assert [row["kind"] for row in plan(**EVERYTHING)][4:] == ["Secret", "HorizontalPodAutoscaler"]
    first, other = plan()[:2]
    assert manifests.owned(other, "u")["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert first["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert first["spec"]["replicas"] == 1
    assert "replicas" not in plan(most=3)[0]["spec"]  # the autoscaler's to say


def test_a_server_has_no_rights_and_only_reads_its_model() -> None:
    made = plan()
    spec, row = made[0]["spec"]["template"]["spec"], container(made)
    assert row["securityContext"]["readOnlyRootFilesystem"]
    assert row["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert {"name": "model", "mountPath": "/model", "readOnly": True} in row["volumeMounts"]
    assert {"name": "model", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in spec["volumes"]
    assert made[2]["spec"]["egress"] == []


def test_a_pod_outlives_what_its_server_takes_to_end() -> None:
    made = plan()
    words, grace = container(made)["command"], made[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    drain, end = (int(words[words.index(option) + 1]) for option in ("--drain", "--grace"))
    assert grace > drain + end
    assert "lifecycle" not in container(made)
    assert container(plan(engine="vllm"))["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", str(drain)]


def test_a_token_is_in_a_secret_and_a_new_one_makes_new_pods() -> None:
    made, other = plan(token="one"), plan(token="two")
    assert "one" not in str(made[:4])
    assert made[4]["stringData"] == {"token": "one"}
    assert container(made)["command"][-2:] == ["--token-file", serving.TOKEN]
    assert made[0]["spec"]["template"]["metadata"] != other[0]["spec"]["template"]["metadata"]


def test_other_servers_have_their_own_words() -> None:
    words = container(plan(engine="tf-serving"))["command"]
    assert {"--model_name=mine", "--model_base_path=/model/mine/export"} <= set(words)
    probe = container(plan(engine="tf-serving"))["readinessProbe"]["httpGet"]
    assert probe == {"path": "/v1/models/mine", "port": "http"}
    row = container(plan(engine="vllm", gpus=1))
    assert row["command"][:3] == ["vllm", "serve", "/model/mine/export"]
    assert row["resources"]["limits"]["nvidia.com/gpu"] == "1"
    with pytest.raises(InvalidInput, match="no engine is named 'triton'"):
        serving.server("triton")


def test_other_servers_have_a_compose_file_as_well() -> None:
    made = serving.elsewhere("tf-serving", "/models/mine", "mine", name="svc", port=8501, image=None, gpus=0)
    row = made["services"]["serve"]
    assert row["ports"] == ["127.0.0.1:8501:8501"]
    assert row["volumes"][0]["read_only"]
    assert "deploy" not in row
    assert "deploy" in serving.elsewhere("vllm", "/m", "m", name="svc", port=1, image=None, gpus=0)["services"]["serve"]
