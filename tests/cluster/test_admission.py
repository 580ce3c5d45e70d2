"""What is foreseen of quotas and limit ranges, held against what a real API server says; and runs under them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl.engines.kube import Cluster as Client
from stackctl.engines.kube_errors import ApiError
from stackctl.runs import admission, preflight, refused
from stackctl.runs.bounds import LimitRange, PodSpec, Quota
from tests.cluster.harness.cluster import Cluster
from tests.cluster.submitting import Submitter, client
from tests.support.admission_cases import CASES, OVERHEAD, Case, shape
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

Shape = tuple[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster) -> Iterator[dict[str, str]]:
    """A namespace for each case, with a pod that is there already, and then its limit range and its quotas."""
    names = {name: f"stacktest-{os.getpid()}-admission-{number}" for number, name in enumerate(CASES)}
    api = client(cluster.kubeconfig)
    runtime = made("node.k8s.io/v1", "RuntimeClass", "stacktest", handler="runc", overhead={"podFixed": OVERHEAD})
    with ThreadPoolExecutor(8) as pool:
        for rows in (
            [runtime, *(made("v1", "Namespace", name) for name in names.values())],
            [made("v1", "ServiceAccount", "default", name) for name in names.values()],
            [blocker(case, names[name]) for name, case in CASES.items() if case.there],
            [row for name, case in CASES.items() for row in bounds(case, names[name])],
        ):
            list(pool.map(partial(create, api), rows))
        yield names
        list(pool.map(lambda name: api.delete("Namespace", name, ""), names.values()))
        api.delete("RuntimeClass", "stacktest", "")


def create(api: Client, manifest: dict[str, Any]) -> None:
    """Create an object; the cluster may have made the service account meanwhile."""
    try:
        api.create(manifest)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise


def made(version: str, kind: str, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place}, **fields}


def blocker(case: Case, namespace: str) -> dict[str, Any]:
    """A pod that no node takes."""
    containers = [{"name": "there", "image": "none", "resources": case.there}]
    spec = {"nodeSelector": {"stacktest": "nowhere"}, "terminationGracePeriodSeconds": 0, "containers": containers}
    return made("v1", "Pod", "there", namespace, spec=spec)


def bounds(case: Case, namespace: str) -> Iterator[dict[str, Any]]:
    if case.ranges:
        yield made("v1", "LimitRange", "small", namespace, spec={"limits": [*case.ranges]})
    for number, spec in enumerate(case.quotas):
        yield made("v1", "ResourceQuota", f"q{number}", namespace, spec=spec)


def spec(case: Case, namespace: str) -> PodSpec:
    pod = msgspec.convert(case.manifests(namespace)[0]["spec"]["template"]["spec"], PodSpec)
    return msgspec.structs.replace(pod, overhead=case.overhead)


def foreseen(api: Client, case: Case, namespace: str, pod: PodSpec) -> Shape:
    """What is foreseen of the job's pod and its objects."""
    manifests = case.manifests(namespace)
    quotas = api.items("ResourceQuota", Quota, namespace)
    found = admission.judge(pod, api.items("LimitRange", LimitRange, namespace), quotas)
    return shape(found + admission.judge_objects(Counter(map(preflight.counted, manifests)), quotas))


def told(api: Client, case: Case, namespace: str) -> Shape:
    """What the API server says to the pod and the objects, when they are shown to it."""
    manifests = case.manifests(namespace)
    template = manifests[0]["spec"]["template"]
    pod = {**made("v1", "Pod", "a", namespace), "spec": template["spec"]}
    for manifest in (pod, *manifests):
        try:
            api.create(manifest, dry_run=True)
        except ApiError as error:
            said = refused.read(error.message)
            return shape([said]) if said else (error.message, ())
    return "", ()


def test_the_api_server_says_what_was_foreseen(cluster: Cluster, namespaces: dict[str, str]) -> None:
    api = client(cluster.kubeconfig)
    pods = {name: spec(case, namespaces[name]) for name, case in CASES.items()}

    def settled(name: str) -> str:
        """What is wrong in a case: empty as soon as all agree, for quotas are counted a little later than made."""
        case, namespace = CASES[name], namespaces[name]
        seen: list[tuple[Shape, Shape]] = []

        def agreed() -> bool:
            seen[:] = [(foreseen(api, case, namespace, pods[name]), told(api, case, namespace))]
            return seen[0] == ((case.refused, tuple(sorted(case.over))),) * 2

        try:
            until(agreed, 30)
        except AssertionError:
            return f"{name}: foreseen {seen[0][0]}, said {seen[0][1]}"
        return ""

    with ThreadPoolExecutor(8) as pool:
        wrong = [text for text in pool.map(settled, CASES) if text]
    assert not wrong, "\n".join(wrong)


BOUNDED = ["--cpu", "100m", "--cpu-limit", "1", "--memory", "512Mi"]


def bound(submitter: Submitter, kind: str, **spec: Any) -> None:
    """Make a limit range or a quota; returns when it is in force."""
    submitter.cluster.apply(made("v1", kind, "team", submitter.namespace, spec=spec))
    if kind == "ResourceQuota":
        until(lambda: submitter.kubectl("get", "quota", "team", "--output=jsonpath={.status.used}"), 30)


def refused_before(submitter: Submitter, *words: str) -> str:
    done = submitter.stackctl("submit", "--image", submitter.image, "--name", "no", *words, "--", "true")
    assert done.returncode == 3, done.stderr
    return done.stderr


def test_a_run_under_a_quota(submitter: Submitter, tmp_path: Path) -> None:
    """What is told before is what explain says of one that was submitted all the same; one that fits runs."""
    (tmp_path / "mine.py").write_text("import time; time.sleep(600)\n")
    amounts = {"requests.cpu": "2", "limits.cpu": "2", "requests.memory": "1Gi", "limits.memory": "1Gi"}
    bound(submitter, "ResourceQuota", hard=amounts)
    assert "so every pod has to say it: use --cpu-limit and --memory and --cpu" in refused_before(submitter)
    submitter.submit("unsaid", "--skip-check", "quota", "--", "true")
    assert "use --cpu-limit" in submitter.wait_for_cause("unsaid", "amount missing").sentence
    too_much = ["--cpu", "1", "--cpu-limit", "3", "--memory", "512Mi"]
    assert "limits.cpu 2 of 2 left, and the job needs 3" in refused_before(submitter, *too_much)
    submitter.submit("large", "--skip-check", "quota", *too_much, "--", "true")
    assert "limits.cpu 2 in all, and the job needs 3" in submitter.wait_for_cause("large", "quota too small").sentence
    submitter.submit("holder", *BOUNDED, "--grace", "0", "--code", str(tmp_path), "--", "python", "mine.py")
    submitter.wait_for("holder", "running", 120)
    more = ["--cpu", "100m", "--cpu-limit", "2", "--memory", "256Mi"]
    assert "limits.cpu 1 of 2 left, and the job needs 2" in refused_before(submitter, *more)
    submitter.submit("waits", "--skip-check", "quota", *more, "--", "true")
    assert "limits.cpu 1 of 2 in use" in submitter.wait_for_cause("waits", "quota").sentence


def test_a_run_under_a_limit_range(submitter: Submitter) -> None:
    row = {"type": "Container", "max": {"memory": "1Gi"}, "default": {"cpu": "1"}}
    bound(submitter, "LimitRange", limits=[row])
    assert "allows memory of at most 1Gi a container" in refused_before(submitter, "--memory", "2Gi")
    submitter.submit("large", "--skip-check", "limits", "--memory", "2Gi", "--", "true")
    assert "memory of at most 1Gi a container" in submitter.wait_for_cause("large", "limit range").sentence
    assert "gives a limit of cpu 1 by default" in refused_before(submitter, "--cpu", "2")
    submitter.submit("clash", "--skip-check", "limits", "--cpu", "2", "--", "true")
    assert "the limit is 1" in submitter.wait_for_cause("clash", "amounts clash").sentence


def test_a_profile_holds_for_a_job_without_gpus(shared_submitter: Submitter, tmp_path: Path) -> None:
    node = shared_submitter.cluster.nodes[0]
    profile = tmp_path / "ours.toml"
    profile.write_text(
        f'summary = "ours"\nselector = {{ "kubernetes.io/hostname" = "{node}" }}\nenv = {{ WORD = "hello" }}\n'
        'tolerations = [{ key = "team", operator = "Exists" }]\nannotations = { owner = "research" }\n'
    )
    words = ["python", "-c", "import os; print(os.environ['WORD'])"]
    options = ["--image", shared_submitter.image, "--name", "profiled", "--profile", str(profile), "--follow"]
    done = shared_submitter.stackctl("submit", *options, "--", *words)
    assert "[0] hello" in done.stdout.splitlines(), done.stderr
    [pod] = shared_submitter.pods("profiled")
    assert (pod["spec"]["nodeName"], pod["metadata"]["annotations"]["owner"]) == (node, "research")
    assert "team" in [row.get("key") for row in pod["spec"]["tolerations"]]
