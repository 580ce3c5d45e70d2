"""The cluster of the tests itself: it behaves as a cluster does, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness.cluster import Cluster, OwnCluster
from tests.cluster.harness.site import GPUS, PAUSE
from tests.commands import ROOT, hear_signals
from tests.support.processes import children
from tests.support.waiting import until

pytestmark = pytest.mark.needs("cluster")

TALK = """\
import os, socket, time
me, name = os.environ["JOB_COMPLETION_INDEX"], "talk-0.talk"
if me == "0":
    server = socket.create_server(("", 7000))
    connection, _ = server.accept()
    print("heard", connection.recv(100).decode())
else:
    while True:
        try:
            with socket.create_connection((name, 7000), timeout=5) as connection:
                connection.sendall(b"index " + me.encode())
            break
        except OSError:
            time.sleep(0.2)
    print("told", name)
"""

SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_spec(image: str, script: str, gpus: int = 0) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", script],
        "securityContext": SECURITY,
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {},
    }
    return {"restartPolicy": "Never", "containers": [container]}


def pod(name: str, image: str, script: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod_spec(image, script)}


def test_two_nodes_have_eight_gpus_each(own_cluster: OwnCluster) -> None:
    for name in own_cluster.nodes:
        assert own_cluster.ready(name)
        assert own_cluster.get("node", name)["status"]["allocatable"]["nvidia.com/gpu"] == str(GPUS)


def test_pods_on_two_nodes_find_each_other_and_talk(cluster: Cluster, namespace: str, pod_image: str) -> None:
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": "talk"}}
    template = {"spec": {**pod_spec(pod_image, TALK, GPUS), "subdomain": "talk"}}
    job = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0, "template": template}
    meta = {"name": "talk", "namespace": namespace}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": job},
    )
    cluster.kubectl("wait", "--namespace", namespace, "job/talk", "--for=condition=complete", "--timeout=60s")
    pods = cluster.get("pods", "--namespace", namespace)["items"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    logs = cluster.kubectl("logs", "--namespace", namespace, "--selector", "job-name=talk").stdout
    assert sorted(logs.split("\n")) == ["", "heard index 1", "told talk-0.talk"]


def test_exec_runs_in_a_pod(cluster: Cluster, namespace: str, pod_image: str) -> None:
    cluster.kubectl(
        "apply",
        "--namespace",
        namespace,
        "-f-",
        given=json.dumps(pod("sleeper", pod_image, "import time; time.sleep(600)")),
    )
    cluster.kubectl("wait", "--namespace", namespace, "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
    said = cluster.kubectl("exec", "--namespace", namespace, "sleeper", "--", "hostname").stdout
    assert said == "sleeper\n"
    cluster.kubectl("delete", "--namespace", namespace, "pod/sleeper", "--now")


def test_pods_that_are_not_restricted_are_refused(cluster: Cluster, namespace: str, pod_image: str) -> None:
    free = pod("free", pod_image, "print('here')")
    free["spec"]["containers"][0]["securityContext"] = {}
    done = cluster.kubectl("apply", "--namespace", namespace, "--filename=-", given=json.dumps(free), check=False)
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted' in done.stderr


def test_a_killed_node_is_seen_and_comes_back(own_cluster: OwnCluster) -> None:
    name = own_cluster.nodes[-1]
    own_cluster.kill_node(name)
    try:
        until(lambda: not own_cluster.ready(name), 60)
    finally:
        own_cluster.restart_node(name)
    assert own_cluster.ready(name)
    assert own_cluster.get("node", name)["status"]["allocatable"]["nvidia.com/gpu"] == str(GPUS)


def descendants(pid: int) -> set[int]:
    found = children(pid)
    return found.union(*map(descendants, found))


def traces(folder: Path) -> list[str]:
    """What a cluster has left on this machine outside its processes."""
    name = folder.name
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    found = [line for line in (links + rules + Path("/proc/mounts").read_text()).splitlines() if name in line]
    groups = [path for path, _, _ in os.walk("/sys/fs/cgroup") if Path(path).name == name]
    return found + [path for path in [str(folder), *groups] if Path(path).exists()]


@pytest.fixture
def second() -> Iterator[subprocess.Popen[str]]:
    """A second cluster, which another process has started."""
    argv = [sys.executable, "-m", "tests.cluster.harness", "up"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=hear_signals) as up:
        yield up
        up.kill()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_cluster(
    own_cluster: OwnCluster, second: subprocess.Popen[str], sent: signal.Signals
) -> None:
    """A second cluster beside the first, with a pod, whose owner is interrupted or killed."""
    assert second.stdout
    found = re.fullmatch(r"export KUBECONFIG=(.*)\n", second.stdout.readline())
    assert found
    folder = Path(found[1]).parent
    for words in (
        ["wait", "serviceaccount/default", "--for=create", "--timeout=60s"],
        ["run", "idle", f"--image={PAUSE}", "--image-pull-policy=Never"],
        ["wait", "pod/idle", "--for=condition=Ready", "--timeout=60s"],
    ):
        argv = [own_cluster.kubectl_program, f"--kubeconfig={found[1]}", *words]
        subprocess.run(argv, check=True, capture_output=True)
    assert traces(folder)
    processes = descendants(second.pid)
    assert len(processes) > 10
    second.send_signal(sent)
    until(lambda: not traces(folder) and not any(Path(f"/proc/{pid}").exists() for pid in processes), 90)
    assert own_cluster.ready(own_cluster.nodes[0])
