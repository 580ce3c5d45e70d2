from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from stackctl.engines import archive, code_tree
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import place
from stackctl.jobs.pod_options import PodOptions
from stackctl.runs import asked_before, feasibility, preflight
from stackctl.runs.bounds import LimitRange, Quota, QuotaStatus
from stackctl.runs.submission import Submission


class Namespace:
    """A namespace that allows everything, by what it answers to each kind of object; what is an error is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, set[str]()

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        return self._answer(kind, {"metadata": {"name": name}})

    def items(self, kind: str, of: Any, namespace: str = "", **query: str) -> Any:
        return self._answer(kind, [])

    def read(self, path: str, of: Any) -> Any:
        kind = "LocalQueue" if path.endswith("localqueues") else "ClusterQueue"
        return msgspec.convert(self._answer(kind, UNBOUND), of)

    def served(self, group: str) -> str:
        return str(self._answer("Kueue", f"{group}/v1beta1"))

    def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Any:
        return self._answer(manifest["kind"], {"status": {"allowed": True}}), []

    def _answer(self, kind: str, otherwise: Any) -> Any:
        self.asked.add(kind)
        found = self.answers.get(kind, otherwise)
        if isinstance(found, Exception):
            raise found
        return found


UNBOUND = {"metadata": {"name": "shared"}}
"""A ClusterQueue without resource groups, which says nothing of what a job asks for."""


def forbidden(resource: str, verb: str = "list") -> ApiError:
    text = (
        f'{resource} is forbidden: User "me" cannot {verb} resource "{resource}" in API group "" in the namespace "a"'
    )
    return ApiError(f"the cluster does not allow this: {text}", status=403, reason="RBAC")


def check(
    cluster: Namespace, *skip: str, nodes: int = 1, retries: int = 3, room: bool = False, **asked: Any
) -> list[str]:
    job = jobs.make(name="a", arguments=["true"], nodes=nodes)
    profile = asked.pop("profile", profiles.load("generic"))
    placement = place(job, namespace="team", profile=profile, image="mine:1", retries=retries, **asked)
    manifests = kubernetes.manifests(job, placement, token="t")
    left_out = (*skip, *(() if room else ("room",)))
    return preflight.check(cast(Cluster, cluster), Submission(job, placement, manifests), left_out)


def test_every_check_has_a_name_that_is_told() -> None:
    assert ["namespace", *preflight._TABLE] == list(asked_before.CHECKS)


UNSEEN: dict[str, tuple[dict[str, ApiError], dict[str, Any]]] = {
    "claims (get persistentvolumeclaims)": (
        {"PersistentVolumeClaim": forbidden("persistentvolumeclaims", "get")},
        {"volumes": ["x"]},
    ),
    "priority (get priorityclasses)": ({"PriorityClass": forbidden("priorityclasses", "get")}, {"priority": "high"}),
    "runtime (get runtimeclasses)": (
        {"RuntimeClass": forbidden("runtimeclasses", "get")},
        {"profile": profiles.Profile(summary="", runtime_class="kata")},
    ),
    "queue (list localqueues)": ({"LocalQueue": forbidden("localqueues")}, {"queue": "main"}),
    "limits (list limitranges)": ({"LimitRange": forbidden("limitranges")}, {}),
    "quota (list resourcequotas)": ({"ResourceQuota": forbidden("resourcequotas")}, {}),
    "access (create selfsubjectaccessreviews)": (
        {"SelfSubjectAccessReview": forbidden("selfsubjectaccessreviews", "create")},
        {},
    ),
    "admission (create jobs)": ({"Job": forbidden("jobs", "create")}, {}),
}
"""What is said to be unchecked -> what the cluster forbids, and what is asked of the job."""


@pytest.mark.parametrize("check_and_permission", UNSEEN)
def test_what_may_not_be_asked_is_not_checked(check_and_permission: str) -> None:
    answers, asked = UNSEEN[check_and_permission]
    assert check(Namespace(**answers), **asked) == [
        f"not checked, since you may not ask the cluster: {check_and_permission}"
    ]


def test_each_way_to_the_cluster_has_permissions_of_its_own(tmp_path: Path) -> None:
    class Asking(Namespace):
        def create(self, manifest: dict[str, Any], *, dry_run: bool = False) -> Any:
            about = manifest.get("spec", {}).get("resourceAttributes", {})
            self.asked.add(f"{about.get('verb')} {about.get('resource')} {about.get('subresource')}".strip())
            return {"status": {"allowed": True}}, []

    job = jobs.make(name="a", arguments=["true"])
    (tmp_path / "mine.py").write_text("")
    tree = code_tree.read(tmp_path, archive.look(tmp_path))
    profile = profiles.load("generic")

    def asked(through: str, code: code_tree.Tree | None = None) -> set[str]:
        placement = place(job, namespace="team", profile=profile, image="mine:1", via=through, api="x/v1")
        cluster, made = Asking(), kubernetes.manifests(job, placement, token="t")
        preflight.check(cast(Cluster, cluster), Submission(job, placement, made, code), ["room"])
        return cluster.asked

    assert {"create jobs", "delete jobs"} <= asked("job")
    assert {"create jobsets", "get jobsets", "delete jobsets", "get jobs"} <= asked("jobset")
    assert not {"create jobs", "delete jobs"} & asked("jobset")
    assert {"create trainjobs", "create trainingruntimes", "delete trainingruntimes"} <= asked("trainjob")
    assert {"create jobs", "create pods exec", "get pods exec"} <= asked("jobset", tree)


def test_quotas_count_what_a_manager_makes_too() -> None:
    full = Namespace(ResourceQuota=[quota(**{"count/jobs.batch": "0"})])
    assert "count/jobs.batch" in refused(full, via="jobset", api="jobset.x-k8s.io/v9")


def test_it_is_said_once() -> None:
    [said] = check(Namespace(LimitRange=forbidden("limitranges"), ResourceQuota=forbidden("resourcequotas")))
    assert said.endswith(": limits (list limitranges), quota (list resourcequotas)")


def test_what_admission_forbids_is_no_want_of_permission() -> None:
    refusal = ApiError("the cluster does not admit this: no job on Sundays", status=403, reason="Webhook")
    with pytest.raises(ApiError, match="Sundays"):
        check(Namespace(Job=refusal))
    assert check(Namespace(Job=refusal), "admission") == []


def test_a_check_that_is_left_out_asks_nothing() -> None:
    cluster = Namespace()
    check(cluster, "quota", "limits", "namespace", "pods")
    assert cluster.asked == {"SelfSubjectAccessReview", "Job"}
    assert not {"ResourceQuota", "LimitRange", "Namespace"} & cluster.asked


def test_an_unknown_check_is_an_error_that_lists_them() -> None:
    with pytest.raises(InvalidInput) as caught:
        check(Namespace(), "quotas")
    assert "--skip-check quotas: there is no such check" in str(caught.value)
    assert "did you mean 'quota'?" in str(caught.value)
    assert all(name in str(caught.value) for name in asked_before.CHECKS)


def quota(**hard: str) -> Quota:
    return msgspec.convert({"metadata": {"name": "team"}, "spec": {"hard": hard}}, Quota)


def small(**bounds: dict[str, str]) -> LimitRange:
    row = {"type": "Container", **bounds}
    return msgspec.convert({"metadata": {"name": "small"}, "spec": {"limits": [row]}}, LimitRange)


def refused(cluster: Namespace, **asked: Any) -> str:
    with pytest.raises(MissingHere) as caught:
        check(cluster, **asked)
    return str(caught.value)


def test_a_quota_that_wants_amounts_names_the_options() -> None:
    said = refused(Namespace(ResourceQuota=[quota(**{"limits.cpu": "4", "limits.memory": "4Gi"})]))
    assert "counts limits.cpu and limits.memory, so every pod has to say it: use --cpu-limit and --memory" in said
    assert said.endswith("--skip-check quota submits it all the same")
    enough = Namespace(ResourceQuota=[quota(**{"limits.cpu": "4", "limits.memory": "4Gi"})])
    assert check(enough, cpu_limit="1", memory="1Gi") == []


def test_what_a_limit_range_that_cannot_be_seen_may_say_is_not_missed() -> None:
    cluster = Namespace(ResourceQuota=[quota(cpu="4")], LimitRange=forbidden("limitranges"))
    assert check(cluster) == ["not checked, since you may not ask the cluster: limits (list limitranges)"]
    assert "so every pod has to say it" in refused(Namespace(ResourceQuota=[quota(cpu="4")]))


def test_every_node_counts_and_of_a_queue_only_the_whole() -> None:
    status = QuotaStatus(hard={"pods": "2"}, used={"pods": "1"})
    full = msgspec.structs.replace(quota(pods="2"), status=status)
    said = refused(Namespace(ResourceQuota=[full]), nodes=2)
    assert "the quota team has pods 1 of 2 left, and the job needs 2" in said
    queues = {"items": [{"metadata": {"name": "main"}}]}
    assert check(Namespace(ResourceQuota=[full], LocalQueue=queues), nodes=2, queue="main") == []
    assert "the job needs 3" in refused(Namespace(ResourceQuota=[full], LocalQueue=queues), nodes=3, queue="main")


def test_a_bound_is_told_with_the_option_that_keeps_it() -> None:
    said = refused(Namespace(LimitRange=[small(max={"memory": "1Gi"})]), memory="2Gi")
    assert "the limit range small allows memory of at most 1Gi a container, and 2Gi is the limit: use --memory" in said
    said = refused(Namespace(LimitRange=[small(default={"cpu": "1"})]), cpu="2")
    assert "the limit range small gives a limit of cpu 1 by default, and the job asks for 2: use --cpu-limit" in said


def test_ended_pods_that_count_are_told() -> None:
    [said] = check(Namespace(ResourceQuota=[quota(**{"count/pods": "3"})]), nodes=2)
    assert "has count/pods 3 of 3 left, and the job needs 8 for all its attempts, since ended pods count" in said
    assert check(Namespace(ResourceQuota=[quota(**{"count/pods": "2"})]), nodes=2, retries=0) == []


def test_a_queue_that_is_not_there() -> None:
    assert "the cluster has no Kueue" in refused(Namespace(Kueue=""), queue="main")
    queues = {"items": [{"metadata": {"name": "research"}}]}
    assert "there is no such queue; known: research" in refused(Namespace(LocalQueue=queues), queue="main")


def ready_node(**amounts: str) -> feasibility.Node:
    status = {"allocatable": {"pods": "10", **amounts}, "conditions": [{"type": "Ready", "status": "True"}]}
    return msgspec.convert({"metadata": {"name": "a"}, "status": status}, feasibility.Node)


def test_what_limit_ranges_and_the_runtime_add_needs_room_too() -> None:
    nodes = [ready_node(cpu="2")]
    assert check(Namespace(Node=nodes), room=True) == []
    said = refused(Namespace(Node=nodes, LimitRange=[small(defaultRequest={"cpu": "3"})]), room=True)
    assert "0 of 1 nodes fit now: each needs cpu 3\n  a: cpu 2 of 2 free" in said
    assert said.endswith("ask for less on each; --skip-check room submits it all the same")
    heavy = Namespace(Node=nodes, RuntimeClass={"overhead": {"podFixed": {"cpu": "500m"}}})
    kata = profiles.Profile(summary="", runtime_class="kata")
    assert "each needs cpu 2.5" in refused(heavy, room=True, cpu="2", profile=kata)
    assert check(heavy, room=True, cpu="1500m", profile=kata) == []


def test_a_quota_of_a_class_counts_pods_that_have_it_by_default() -> None:
    spec = {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["usual"]}]}}  # fmt: skip
    of_a_class = [msgspec.convert({"metadata": {"name": "team"}, "spec": spec}, Quota)]
    classes = [{"metadata": {"name": "other"}}, {"metadata": {"name": "usual"}, "globalDefault": True}]
    assert "the quota team has pods 0 of 0" in refused(Namespace(ResourceQuota=of_a_class, PriorityClass=classes))
    assert check(Namespace(ResourceQuota=of_a_class, PriorityClass=forbidden("priorityclasses"))) == []
    assert "PriorityClass" not in asked_of(Namespace(ResourceQuota=[quota(pods="9")]))


def asked_of(cluster: Namespace) -> set[str]:
    check(cluster)
    return cluster.asked


FAILING: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "namespace": ({"Namespace": None}, {}),
    "access": ({"SelfSubjectAccessReview": {"status": {"allowed": False}}}, {}),
    "claims": ({"PersistentVolumeClaim": None}, {"volumes": ["x"]}),
    "pods": ({"ServiceAccount": None}, {"pods": PodOptions(service_account="trainer")}),
    "priority": ({"PriorityClass": None}, {"priority": "high"}),
    "runtime": ({"RuntimeClass": None}, {"profile": profiles.Profile(summary="", runtime_class="kata")}),
    "queue": ({"Kueue": ""}, {"queue": "main"}),
    "limits": ({"LimitRange": [small(min={"memory": "1Gi"})]}, {"memory": "512Mi"}),
    "quota": ({"ResourceQuota": [quota(pods="0")]}, {}),
    "admission": ({"Job": ApiError("no", status=422)}, {}),
    "room": ({"Node": []}, {}),
}


@pytest.mark.parametrize("name", asked_before.CHECKS)
def test_each_check_can_be_left_out(name: str) -> None:
    answers, asked = FAILING[name]
    nodes = {"Node": [ready_node(memory="64Gi")]}
    with pytest.raises((MissingHere, ApiError)) as caught:
        check(Namespace(**nodes | answers), room=True, **asked)
    named = f"--skip-check {name} submits it all the same" in str(caught.value)
    assert named == (name not in ("namespace", "admission")), "of these two the cluster would say the same again"
    assert check(Namespace(**nodes | answers), name, room=True, **asked) == []
