from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml

from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.job import Job
from stackctl.jobs.placement import Placement, place

VERSIONS = ("1.32", "1.34", "1.37")


def job(**given: Any) -> Job:
    return jobs.make(**{"name": "a", "workload": "gpt", "nodes": 2, "gpus": 8, **given})


def placed(made: Job, **given: Any) -> Placement:
    profile = profiles.load(given.pop("profile", "generic"))
    return place(made, **{"namespace": "team", "profile": profile, "image": "registry.example/gpt:1", **given})


def plan(made: Job | None = None, **given: Any) -> list[dict[str, Any]]:
    made = made or job()
    packed = "Y29kZQ==" if given.get("code") and not given.get("code_claim") else ""
    return kubernetes.manifests(made, placed(made, **given), token="t" * 32, packed=packed)


def pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = manifests[0]["spec"]["template"]["spec"]
    return found


def env(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["name"]: row.get("value", row.get("valueFrom")) for row in pod(manifests)["containers"][0]["env"]}


EVERYTHING: dict[str, Any] = {
    "cpu": "500m",
    "cpu_limit": "2",
    "memory": "64Gi",
    "ephemeral_storage": "100Gi",
    "shm": "16Gi",
    "volumes": ["checkpoints", "data:/data:ro"],
    "secret_env": ["WANDB_API_KEY=wandb:api-key"],
    "queue": "research",
    "topology": "example.com/rack",
    "priority": "high",
    "retries": 5,
    "code": "c" * 64,
}


ON_A_CLAIM: dict[str, Any] = {"code": "c" * 64, "code_claim": "shared"}


@pytest.mark.parametrize("given", [{}, EVERYTHING, ON_A_CLAIM, *({"profile": name} for name in profiles.names())])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(given: dict[str, Any], version: str) -> None:
    for manifest in plan(**given):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_two_nodes_with_eight_gpus_are_one_indexed_job() -> None:
    first, secret, service, policy = plan()
    assert [row["kind"] for row in (first, secret, service, policy)] == ["Job", "Secret", "Service", "NetworkPolicy"]
    spec = first["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    container = pod([first])["containers"][0]
    assert container["resources"] == {"requests": {"nvidia.com/gpu": "8"}, "limits": {"nvidia.com/gpu": "8"}}
    assert pod([first])["subdomain"] == service["metadata"]["name"], "pods have names in the service's domain"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = first["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= labels
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels


def test_the_contract_reaches_every_pod() -> None:
    given = env(plan())
    assert given["STACK_RENDEZVOUS"] == "a-0.a:29400"
    assert (given["STACK_NODES"], given["STACK_PROCS"], given["STACK_DEVICE"]) == ("2", "8", "cuda")
    assert "job-completion-index" in given["STACK_NODE_RANK"]["fieldRef"]["fieldPath"]
    assert given["STACK_TOKEN"] == {"secretKeyRef": {"name": "a", "key": "token"}}, "the token stands in no pod spec"
    assert given["STACK_HOST"]["fieldRef"]["fieldPath"] == "spec.nodeName"


def test_the_attempt_is_what_the_job_controller_counts() -> None:
    names = [row["name"] for row in pod(plan())["containers"][0]["env"]]
    assert names.index("JOB_FAILURES") < names.index("STACK_ATTEMPT"), "Kubernetes fills in what stands before"
    assert env(plan())["STACK_ATTEMPT"] == "1+$(JOB_FAILURES)+$(JOB_DISRUPTIONS)"


def test_a_value_of_ones_own_is_named_in_the_pod_and_stands_in_the_secret() -> None:
    made = job()
    rows = kubernetes.manifests(made, placed(made, secret_env=["KEY"]), token="t", values={"env.KEY": "v"})
    assert env(rows)["KEY"] == {"secretKeyRef": {"name": "a", "key": "env.KEY"}}
    assert rows[1]["stringData"] == {"token": "t", "env.KEY": "v"}


def test_failures_are_counted_and_disruptions_are_not() -> None:
    spec = plan(retries=5)[0]["spec"]
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (5, 0)
    rules = spec["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob", "Ignore", "Ignore"]
    assert rules[0]["onExitCodes"]["values"] == [78]
    assert rules[1]["onPodConditions"][0]["type"] == "DisruptionTarget"


def test_pods_are_restricted_and_hold_no_credentials_of_the_cluster() -> None:
    spec = pod(plan(**EVERYTHING))
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*spec["containers"], *spec["initContainers"]]:
        confined = container["securityContext"]
        assert confined == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def test_kubernetes_outwaits_the_launcher() -> None:
    assert pod(plan(job(grace=90)))["terminationGracePeriodSeconds"] == 100


def test_shared_memory_grows_with_ranks_and_stays_within_memory() -> None:
    assert pod(plan())["volumes"][0] == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert pod(plan(memory="4Gi"))["volumes"][0]["emptyDir"]["sizeLimit"] == "2Gi"
    assert pod(plan(memory="300Mi"))["volumes"][0]["emptyDir"]["sizeLimit"] == "150Mi"
    assert pod(plan(shm="500M"))["volumes"][0]["emptyDir"]["sizeLimit"] == "500M"


def test_outputs_go_to_a_folder_of_the_run_on_a_claim_and_else_go_with_the_pod() -> None:
    assert env(plan())["STACK_OUT"] == "/out"
    assert {"name": "out", "emptyDir": {}} in pod(plan())["volumes"]
    kept = plan(volumes=["checkpoints", "data:/data:ro"])
    assert env(kept)["STACK_OUT"] == "/out/a"
    assert [row["mountPath"] for row in pod(kept)["containers"][0]["volumeMounts"]] == ["/dev/shm", "/out", "/data"]
    assert pod(kept)["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "data", "readOnly": True}


def test_shipped_code_is_unpacked_where_the_ranks_start() -> None:
    made = plan(code="c" * 64)
    assert made[1]["data"] == {"code.tgz": "Y29kZQ=="}
    assert pod(made)["initContainers"][0]["command"][-1] == "/workspace"
    assert pod(made)["containers"][0]["workingDir"] == "/workspace"
    assert "workingDir" not in pod(plan())["containers"][0]


def test_a_queue_starts_the_job() -> None:
    first = plan(queue="research")[0]
    assert first["spec"]["suspend"] is True
    assert first["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert "suspend" not in plan()[0]["spec"]


def test_the_container_that_unpacks_says_what_a_quota_may_count_and_takes_no_device() -> None:
    first, then = (pod(plan(**EVERYTHING))[kind][0]["resources"] for kind in ("initContainers", "containers"))
    limits = {"memory": "64Gi", "ephemeral-storage": "100Gi", "cpu": "2"}
    assert first == {"requests": {**limits, "cpu": "500m"}, "limits": limits}
    assert then["limits"] == {**limits, "nvidia.com/gpu": "8"}
    assert pod(plan(code="c" * 64))["initContainers"][0]["resources"] == {}


def test_a_cpu_limit_alone_is_asked_for_too() -> None:
    assert pod(plan(cpu_limit="4"))["containers"][0]["resources"]["requests"]["cpu"] == "4"


def test_a_topology_is_asked_for_or_wished_for() -> None:
    def notes(topology: str) -> dict[str, str]:
        found = plan(queue="research", topology=topology)[0]["spec"]["template"]["metadata"]["annotations"]
        return {name: value for name, value in found.items() if name.startswith("kueue.x-k8s.io/")}

    assert notes("rack") == {"kueue.x-k8s.io/podset-required-topology": "rack"}
    assert notes("rack:preferred") == {"kueue.x-k8s.io/podset-preferred-topology": "rack"}


def test_what_of_a_profile_is_for_gpus_is_not_for_jobs_without() -> None:
    made = plan(profile="eks")
    assert pod(made)["containers"][0]["resources"]["limits"]["vpc.amazonaws.com/efa"] == "32"
    assert pod(made)["containers"][0]["resources"]["requests"]["cpu"] == "1"  # huge pages alone are refused
    assert env(made)["FI_PROVIDER"] == "efa"
    on_cpu = plan(job(gpus=0, procs=2, device="cpu"), profile="eks")
    assert "tolerations" not in pod(on_cpu)
    assert pod(on_cpu)["containers"][0]["resources"] == {}


def test_what_kubernetes_would_fill_in_is_left_alone() -> None:
    made = plan(job(workload="", arguments=["sh", "-c", "echo $(HOME) $$ $X"], env={"PRICE": "$(5)"}))
    assert pod(made)["containers"][0]["command"][-1] == "echo $$(HOME) $$$$ $$X"
    assert env(made)["PRICE"] == "$$(5)"


def test_the_longest_name_still_makes_valid_host_names() -> None:
    made = plan(job(name="a" * 50, nodes=65_536))
    assert len(f"{made[0]['metadata']['name']}-65535") <= 63


def test_the_same_job_gives_the_same_bytes_and_another_does_not() -> None:
    assert kubernetes.to_yaml(plan()) == kubernetes.to_yaml(plan())
    digests = {kubernetes.digest(made[0]) for made in (plan(), plan(cpu="2"), plan(code="d" * 64))}
    assert len(digests) == 3


@pytest.mark.parametrize(("volumes", "name"), [([], "packed"), (["data:/data:ro", "shared"], "claim-1")])
def test_code_on_a_claim_is_unpacked_by_its_content_and_may_not_be_written_to(volumes: list[str], name: str) -> None:
    first, secret, *_ = plan(volumes=volumes, **ON_A_CLAIM)
    [unpack] = pod([first])["initContainers"]
    assert unpack["volumeMounts"][0] == {"name": name, "mountPath": "/stack/code", "readOnly": True}
    assert unpack["command"][-4:] == ["unpack", "/stack/code/.stackctl/code", "c" * 64, "/workspace"]
    claims = [row["persistentVolumeClaim"]["claimName"] for row in pod([first])["volumes"] if "shared" in str(row)]
    assert claims == ["shared"], "a claim that is mounted twice may keep a pod waiting"
    assert "data" not in secret


def test_kubectl_takes_the_yaml_and_the_json() -> None:
    made = plan(**EVERYTHING)
    assert list(yaml.safe_load_all(kubernetes.to_yaml(made))) == made
    assert json.loads(msgspec.json.encode(kubernetes.as_list(made))) == {
        "apiVersion": "v1",
        "kind": "List",
        "items": made,
    }


def test_what_the_job_owns_goes_with_it() -> None:
    first, _, service, _ = plan()
    owner = kubernetes.owned(service, first, "uid-1")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", "a", "uid-1")
    assert "ownerReferences" not in service["metadata"]


def test_pods_may_be_kept_apart() -> None:
    assert "affinity" not in pod(plan())
    first, *_ = plan(apart=True, kept=60)
    rule = pod([first])["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    labels = first["spec"]["template"]["metadata"]["labels"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"]["matchLabels"].items() <= labels.items()
    assert first["spec"]["ttlSecondsAfterFinished"] == 60
    for version in VERSIONS:
        kubernetes_validate.validate(first, version, strict=True)
