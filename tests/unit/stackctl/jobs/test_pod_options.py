from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, pod_options, profiles
from stackctl.jobs.placement import place
from stackctl.jobs.pod_options import PodOptions
from stackctl.jobs.profiles import Toleration

EVERYTHING: dict[str, Any] = {
    "service_account": "trainer",
    "image_pull_secrets": ("registry", "mirror"),
    "image_pull_policy": "Always",
    "labels": ("team=vision", "example.com/cost-center=17"),
    "annotations": ("example.com/note=any text: at all = fine",),
    "node_selector": ("pool=h100", "kubernetes.io/arch=amd64"),
    "tolerations": ("dedicated=training:NoSchedule", "spot", "drain:NoExecute"),
    "on_nodes": ("node-1", "node-2"),
    "exclude_nodes": ("node-3",),
    "run_as": "2000:3000",
    "scheduler": "volcano",
    "host_network": True,
    "mounts": (
        "host:/scratch:/scratch",
        "configmap:settings/a.yaml:/settings/a.yaml",
        "secret:keys:/keys",
        "claim:data/books:/books:ro",
    ),
    "deadline": "12h",
    "keep": "90m",
}


def plan(volumes: tuple[str, ...] = (), profile: str = "generic", code: str = "", **asked: Any) -> list[dict[str, Any]]:
    made = jobs.make(name="a", workload="gpt", nodes=2, gpus=8)
    placement = place(
        made,
        namespace="team",
        profile=profiles.load(profile),
        image="i",
        volumes=volumes,
        code=code,
        pods=PodOptions(**asked),
    )
    return kubernetes.manifests(made, placement, token="t" * 32, packed="Y29kZQ==" if code else "")


def pod(**asked: Any) -> dict[str, Any]:
    return kubernetes.pod_of(plan(**asked)[0])


@pytest.mark.parametrize("version", ["1.32", "1.34", "1.37"])
@pytest.mark.parametrize("profile", ["generic", "eks"])
def test_everything_is_what_kubernetes_takes(version: str, profile: str) -> None:
    for manifest in plan(volumes=("checkpoints", "data:/data:ro"), profile=profile, code="c" * 64, **EVERYTHING):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_without_options_nothing_is_there() -> None:
    assert not {"hostNetwork", "schedulerName", "affinity", "serviceAccountName", "imagePullSecrets"} & pod().keys()
    assert "activeDeadlineSeconds" not in plan()[0]["spec"]


def test_who_the_pods_are() -> None:
    made = pod(**EVERYTHING, code="c" * 64)
    assert made["serviceAccountName"] == "trainer"
    assert made["automountServiceAccountToken"] is False, "an identity in the cloud takes no token of the cluster"
    assert made["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert made["schedulerName"] == "volcano"
    assert {row["imagePullPolicy"] for row in [*made["containers"], *made["initContainers"]]} == {"Always"}
    security = made["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (2000, 3000, 3000)
    assert pod(run_as="2000")["securityContext"]["fsGroup"] == 2000


def test_labels_are_on_all_objects_and_annotations_on_job_and_pods() -> None:
    made = plan(**EVERYTHING)
    for row in (*made, made[0]["spec"]["template"]):
        assert row["metadata"]["labels"].items() >= {"team": "vision", "example.com/cost-center": "17"}.items()
        assert row["metadata"]["labels"]["stackctl.io/run"] == "a"
    for row in (made[0], made[0]["spec"]["template"]):
        assert row["metadata"]["annotations"]["example.com/note"] == "any text: at all = fine"
    assert (
        plan(labels=("sidecar.istio.io/inject=true",))[0]["spec"]["template"]["metadata"]["labels"][
            "sidecar.istio.io/inject"
        ]
        == "true"
    ), "who asks for a sidecar has one"


def test_where_pods_go() -> None:
    made = pod(**EVERYTHING, profile="eks")
    assert made["nodeSelector"]["pool"] == "h100"
    assert made["tolerations"][-3:] == [
        {"key": "dedicated", "value": "training", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
        {"key": "drain", "operator": "Exists", "effect": "NoExecute"},
    ]
    assert len(made["tolerations"]) == 3 + len(profiles.load("eks").effective(gpus=True).tolerations), (
        "beside the profile's"
    )
    assert terms(**EVERYTHING) == [[("metadata.name", "In", ["node-1"])], [("metadata.name", "In", ["node-2"])]]
    assert terms(exclude_nodes=("a", "b")) == [[("metadata.name", "NotIn", ["a"]), ("metadata.name", "NotIn", ["b"])]]


def terms(**asked: Any) -> list[list[tuple[str, str, list[str]]]]:
    rule = pod(**asked)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [[tuple(row.values()) for row in term["matchFields"]] for term in rule["nodeSelectorTerms"]]


def test_on_the_network_of_nodes_pods_find_each_other_and_never_share_a_node() -> None:
    made = pod(host_network=True)
    assert (made["hostNetwork"], made["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert made["containers"][0]["ports"] == [{"containerPort": 29400, "hostPort": 29400}]
    assert "ports" not in pod()["containers"][0]


def test_how_long() -> None:
    spec = plan(**EVERYTHING)[0]["spec"]
    assert (spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (12 * 3600, 90 * 60)
    assert plan()[0]["spec"]["ttlSecondsAfterFinished"] == 7 * 24 * 3600


def test_mounts() -> None:
    made = pod(volumes=("out", "data:/data"), mounts=(*EVERYTHING["mounts"], "claim:data/images:/images"))
    sources = {row["name"]: row for row in made["volumes"]}
    points = {row["mountPath"]: row for row in made["containers"][0]["volumeMounts"]}
    assert sources[points["/scratch"]["name"]]["hostPath"] == {"path": "/scratch", "type": "Directory"}
    assert points["/settings/a.yaml"] == {
        "name": points["/settings/a.yaml"]["name"],
        "mountPath": "/settings/a.yaml",
        "subPath": "a.yaml",
        "readOnly": True,
    }
    assert sources[points["/keys"]["name"]]["secret"] == {"secretName": "keys"}
    assert (points["/books"]["subPath"], points["/books"]["readOnly"]) == ("books", True)
    assert {points[path]["name"] for path in ("/data", "/books", "/images")} == {"claim-1"}, "one volume a claim"
    assert "readOnly" not in points["/images"]


def test_what_a_pod_beside_the_runs_takes_over() -> None:
    made = pod_options.surroundings(pod(**EVERYTHING))
    assert made.keys() == {*pod_options.SURROUNDINGS, "affinity"}
    assert pod_options.surroundings(pod()).keys() == {"tolerations", "securityContext"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"service_account": "Me"}, "--service-account Me: a name has"),
        ({"image_pull_secrets": ("",)}, "--image-pull-secret"),
        ({"image_pull_policy": "Sometimes"}, "--image-pull-policy Sometimes: must be one of Always"),
        ({"labels": ("team",)}, "--label team: must be KEY=VALUE"),
        ({"labels": ("-team=a",)}, "--label -team=a: a key has"),
        ({"labels": ("Example/team=a",)}, "--label Example/team=a: a key has"),
        ({"labels": ("team=a b",)}, "--label team=a b: a label's value"),
        ({"labels": (f"team={'a' * 64}",)}, "63 at most"),
        ({"labels": ("team=a", "team=b")}, "team is set twice"),
        ({"labels": ("stackctl.io/run=b",)}, "is stackctl's own"),
        ({"labels": ("app.kubernetes.io/managed-by=me",)}, "it tells runs from other objects"),
        ({"labels": ("job-name=b",)}, "is the Job controller's own"),
        ({"labels": ("kueue.x-k8s.io/queue-name=b",)}, "is set by --queue"),
        ({"annotations": ("batch.kubernetes.io/x=b",)}, "is the Job controller's own"),
        ({"annotations": (f"note={'x' * 300_000}",)}, "256 KiB"),
        ({"node_selector": ("pool",)}, "--node-selector pool: must be KEY=VALUE"),
        ({"tolerations": ("a:Never",)}, "--toleration a:Never: an effect is one of NoSchedule"),
        ({"tolerations": ("=a",)}, "a key has"),
        ({"tolerations": ("a=b c",)}, "as a taint is written"),
        ({"on_nodes": ("Node",)}, "--node Node"),
        ({"on_nodes": ("a", "b"), "exclude_nodes": ("c", "b")}, "--exclude-node b: is chosen by --node too"),
        ({"run_as": "0"}, "--run-as 0: training never needs root"),
        ({"run_as": "me"}, "must be UID[:GID]"),
        ({"run_as": "1:2:3"}, "must be UID[:GID]"),
        ({"run_as": "99999999999"}, "must be UID[:GID]"),
        ({"scheduler": "-"}, "--scheduler -"),
        ({"deadline": "soon"}, "--deadline soon: is no time"),
        ({"deadline": "0"}, "--deadline 0: must be from 1"),
        ({"deadline": "9000d"}, "must be from 1"),
        ({"keep": "5"}, "--keep 5: must be from 60"),
        ({"mounts": ("/data:/data",)}, "must be KIND:SOURCE:PATH[:ro]"),
        ({"mounts": ("hots:/data:/data",)}, "did you mean 'host'?"),
        ({"mounts": ("host:data:/data",)}, "a folder of the node is an absolute path"),
        ({"mounts": ("host:/a/../b:/data",)}, "a folder of the node is an absolute path"),
        ({"mounts": ("claim:Data:/data",)}, "a claim's name"),
        ({"mounts": ("claim:data/../x:/data",)}, "a relative path without .."),
        ({"mounts": ("host:/data:data",)}, "the path must be absolute"),
        ({"mounts": ("host:/dev/infiniband:/dev/infiniband",)}, "/dev/infiniband has a use already"),
        ({"mounts": ("host:/a:/out",)}, "/out has a use already"),
        ({"mounts": ("host:/a:/x", "host:/b:/x/y")}, "clashes with /a at /x"),
        ({"mounts": ("claim:data/x:/data/x",), "volumes": ("data:/data",)}, "clashes with data at /data"),
        ({"mounts": ("claim:data/x:/x",), "volumes": ("data:/data:ro",)}, "--volume mounts data read-only"),
    ],
)
def test_what_cannot_be_is_one_clear_error(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as error:
        plan(**asked)
    assert said in str(error.value)


def test_a_toleration_is_written_as_a_taint() -> None:
    def read(text: str) -> Toleration:
        return pod_options.settings(PodOptions(tolerations=(text,)), (), {}).tolerations[0]

    assert read("a=b:NoSchedule") == Toleration("a", "Equal", "b", "NoSchedule")
    assert read("a=b") == Toleration("a", "Equal", "b")
    assert read("example.com/a:NoExecute") == Toleration("example.com/a", "Exists", "", "NoExecute")
    assert read("a=") == Toleration("a", "Equal", "")
