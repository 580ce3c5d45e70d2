from __future__ import annotations

import kubernetes_validate
import pytest

from stackctl.jobs import claim_reader, kubernetes, pod_options, profiles
from stackctl.jobs.pod_options import PodSettings


def plan(profile: str) -> kubernetes.Manifest:
    return claim_reader.manifest(
        "read",
        "team",
        claim="ckpt",
        image="mine:1",
        command=["python", "-c", "print('$(A)')"],
        node_choice=pod_options.node_choice(PodSettings(), profiles.load(profile).effective(gpus=True)),
    )


@pytest.mark.parametrize("version", ["1.32", "1.34", "1.37"])
def test_it_is_what_kubernetes_takes(version: str) -> None:
    made = plan("aks")
    kubernetes_validate.validate(made, version, strict=True)


def test_it_can_only_read_and_goes_by_itself() -> None:
    made = plan("aks")
    pod = made["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["volumeMounts"] == [{"name": "out", "mountPath": "/out", "readOnly": True}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["args"][-1] == "print('$$(A)')"
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert "stackctl.io/run" not in made["metadata"]["labels"], "it is no run, and not listed as one"
    assert {"ttlSecondsAfterFinished", "activeDeadlineSeconds"} <= made["spec"].keys()


@pytest.mark.parametrize(
    ("profile", "keys"), [("aks", ["nvidia.com/gpu", "sku"]), ("eks", ["nvidia.com/gpu", "vpc.amazonaws.com/efa"])]
)
def test_it_can_run_where_every_node_is_tainted_for_gpus(profile: str, keys: list[str]) -> None:
    pod = plan(profile)["spec"]["template"]["spec"]
    assert [row["key"] for row in pod["tolerations"]] == keys
    assert pod["containers"][0]["resources"] == claim_reader.AMOUNTS, "and it takes no GPU and no network device there"
