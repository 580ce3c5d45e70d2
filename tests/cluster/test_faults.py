"""Submit and cancel through a proxy that spoils each request in turn: they end right every time, with no orphan."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackctl.engines import kube
from stackctl.engines.kube_errors import ApiError
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import place
from stackctl.runs import submission, submit, watch
from stackctl.runs.submission import Submission
from stackctl.suite import cluster as suite
from tests.cluster.faults import KINDS, FaultyProxy
from tests.cluster.harness.cluster import Cluster
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

EVERYTHING = "jobs,services,secrets,networkpolicies"


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[FaultyProxy]:
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    place, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if "token" not in user or "certificate-authority" not in place:
        pytest.skip("the proxy needs a cluster that takes tokens")
    with FaultyProxy(place["server"], place["certificate-authority"], user["token"]) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.spoil(0, "")
        proxy.shutdown()


@pytest.fixture
def through(proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process reach the cluster through the proxy, and wait for answers, but not between two tries."""
    named = {"name": "proxy", "cluster": {"server": proxy.address}}
    context = {"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}
    config = {"current-context": "proxy", "clusters": [named], "contexts": [context]}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({**config, "users": [{"name": "nobody", "user": {}}]}))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("STACK_KUBE_TIMEOUT", "30")
    monkeypatch.setattr(kube, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(submit, "LOOK_SECONDS", 0.1)


def prepared(name: str, namespace: str, home: Path) -> Submission:
    job = jobs.make(name=name, arguments=["true"], nodes=2)
    # A suspended job has no pods: this is about its objects.
    placement = place(job, namespace=namespace, profile=profiles.load("generic"), image="none", queue="none")
    return submission.prepare(job, placement, None, {"STACK_RUNS": str(home)})


def names(cluster: Cluster, namespace: str) -> list[tuple[str, str]]:
    items = cluster.get(EVERYTHING, "-n", namespace)["items"]
    return sorted((row["metadata"]["name"], row["kind"]) for row in items)


def whole(name: str) -> list[tuple[str, str]]:
    return [(name, kind) for kind in ("Job", "NetworkPolicy", "Secret", "Service")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_submission_is_whole_whichever_request_is_spoiled(
    kind: str, proxy: FaultyProxy, through: None, cluster: Cluster, namespace: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if kind == "silent":
        monkeypatch.setenv("STACK_KUBE_TIMEOUT", "1")
    wanted = []
    for number in range(1, 5):
        name = f"{kind}-{number}"
        proxy.spoil(number, kind)
        uid, _ = submit.create(kube.Cluster(), prepared(name, namespace, tmp_path))
        assert proxy.count > 4, "one request was repeated"
        proxy.spoil(0, "")
        again, there = submit.create(kube.Cluster(), prepared(name, namespace, tmp_path))
        assert (again, there) == (uid, True), "repeated as it was, it is the same job"
        wanted += whole(name)
    assert names(cluster, namespace) == wanted
    for number in range(1, 5):
        # Find it, then delete it; neither is ever answered with AlreadyExists.
        proxy.spoil(0 if kind == "exists" else 1 + number % 2, kind)
        watch.cancel(watch.find(kube.Cluster(), f"{kind}-{number}", namespace))
    until(lambda: not names(cluster, namespace), 60)


@pytest.mark.parametrize("number", range(2, 5))
def test_a_submission_that_is_refused_half_way_leaves_nothing(
    number: int, proxy: FaultyProxy, through: None, cluster: Cluster, namespace: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("tests.cluster.faults.FAULTS", {"refused": (403, {"reason": "Forbidden"})})
    proxy.spoil(number, "refused")
    with pytest.raises(ApiError, match="spoiled by the test"):
        submit.create(kube.Cluster(), prepared("refused", namespace, tmp_path))
    until(lambda: not names(cluster, namespace), 60)


@pytest.mark.parametrize("number", range(2, 5))
def test_ctrl_c_half_way_leaves_nothing(
    number: int, proxy: FaultyProxy, through: None, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    proxy.spoil(number, "interrupts")
    with pytest.raises(KeyboardInterrupt):
        submit.create(kube.Cluster(), prepared("interrupted", namespace, tmp_path))
    until(lambda: not names(cluster, namespace), 60)


def test_ctrl_c_while_the_suites_job_is_being_created_leaves_nothing(
    proxy: FaultyProxy, through: None, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    proxy.spoil(1, "interrupts")
    with pytest.raises(KeyboardInterrupt):
        suite.run(kube.Cluster(), prepared("interrupted", namespace, tmp_path), check=False, say=print)
    assert proxy.count > 1, "it was asked to remove the Job"
    until(lambda: not names(cluster, namespace), 60)


@pytest.mark.parametrize("number", range(1, 5))
def test_a_submission_that_is_cut_is_made_whole_by_repeating_it(
    number: int, through: None, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    ready = prepared("cut", namespace, tmp_path)
    connection = kube.Cluster()
    uid = ""
    for manifest in ready.manifests[:number]:
        made, _ = connection.create(kubernetes.owned(manifest, ready.run, uid) if uid else manifest)
        uid = uid or str(made["metadata"]["uid"])
    assert submit.create(connection, ready) == (uid, True)
    assert names(cluster, namespace) == whole("cut")


def test_a_submission_takes_four_requests_whatever_its_size(
    proxy: FaultyProxy, through: None, namespace: str, tmp_path: Path
) -> None:
    job = jobs.make(name="large", arguments=["true"], nodes=10_000)
    placement = place(job, namespace=namespace, profile=profiles.load("generic"), image="none", queue="none")
    proxy.spoil(0, "")
    submit.create(kube.Cluster(), submission.prepare(job, placement, None, {"STACK_RUNS": str(tmp_path)}))
    assert proxy.count == 4
