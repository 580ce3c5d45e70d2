"""The table of causes, on what a real cluster said: recorded/ holds the fields that we decode, of real runs.

For causes that are much alike, a recording is changed by the words that Kubernetes or containerd use;
tests/cluster/test_causes.py brings them about.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stackctl.runs import objects
from stackctl.runs.evidence import Facts
from stackctl.runs.explain import CAUSES, explain

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())
    return found


def facts(found: dict[str, Any]) -> Facts:
    return Facts(
        msgspec.convert(found["job"], objects.KubeJob),
        msgspec.convert(found["pods"], list[objects.Pod]),
        msgspec.convert(found["events"], list[objects.Event]),
        found.get("service", True),
        found.get("kept"),
        msgspec.convert(found.get("claims", []), list[objects.Claim]),
        group=found.get("group", ""),
    )


def state(pod: dict[str, Any]) -> Any:
    return pod["status"]["containerStatuses"][0]["state"]


def waiting(reason: str, message: str) -> dict[str, Any]:
    found = recorded("image-unreachable")
    found["events"] = []
    state(found["pods"][0])["waiting"] = {"reason": reason, "message": message}
    return found


def failed(**status: Any) -> dict[str, Any]:
    """A run of two nodes whose last attempt failed without a report, in the way given."""
    found = recorded("rank-failed")
    for pod in found["pods"]:
        pod["status"].update(copy.deepcopy(status))
        state(pod)["terminated"] = {"exitCode": 1, "message": "Traceback\nOSError: broken"}
    return found


def unmade(said: str) -> dict[str, Any]:
    """A run through a JobSet of which nothing has been made."""
    found = live(pods=False)
    found["job"] |= {"unmade": "JobSet", "made": {"name": "x-node-0"}}
    about = {"kind": "JobSet", "name": found["job"]["metadata"]["name"]}
    return {**found, "events": [{"reason": "Denied", "message": said, "type": "Warning", "involvedObject": about}]}


def evicted() -> dict[str, Any]:
    """As the kubelet leaves a pod that it put out: of its container it knows nothing more."""
    found = failed(
        reason="Evicted", message="Pod ephemeral local storage usage exceeds the total limit of containers 10Mi."
    )
    unknown = {"reason": "ContainerStatusUnknown", "message": "The container could not be located", "exitCode": 137}
    for pod in found["pods"]:
        state(pod)["terminated"] = {**unknown, "startedAt": None, "finishedAt": None}
    return found


def ended(code: int, **report: Any) -> dict[str, Any]:
    found = failed()
    message = json.dumps({"attempt": 1, "exit_code": code, "last_lines": [], **report}) if report else ""
    for pod in found["pods"]:
        state(pod)["terminated"] = {"exitCode": code, "message": message}
    return found


def disrupted(reason: str, message: str) -> dict[str, Any]:
    return failed(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}])


def refused(message: str) -> dict[str, Any]:
    found = recorded("not-admitted")
    for event in found["events"]:
        event["message"] = message
    return found


def live(suspend: bool = False, *, running: bool = False, pods: bool = True) -> dict[str, Any]:
    found = recorded("rank-failed")
    found["job"]["status"] = {"active": 2}
    found["job"]["spec"]["suspend"] = suspend
    for pod in found["pods"]:
        now: dict[str, Any] = {"running": {}} if running else {"waiting": {"reason": "ContainerCreating"}}
        phase = "Running" if running else "Pending"
        pod["status"] = {"phase": phase, "containerStatuses": [{"name": "node", "state": now}]}
    if not pods:
        found["pods"] = []
    found["events"] = []
    return found


def unpacking() -> dict[str, Any]:
    found = failed()
    for pod in found["pods"]:
        pod["status"]["containerStatuses"] = []
        ended = {"exitCode": 1, "message": "tarfile.ReadError: not a gzip file"}
        pod["status"]["initContainerStatuses"] = [{"name": "unpack", "state": {"terminated": ended}}]
    return found


def pulling() -> dict[str, Any]:
    found = live()
    about = {"kind": "Pod", "name": found["pods"][0]["metadata"]["name"]}
    found["events"] = [{"reason": "Pulling", "message": 'Pulling image "big"', "involvedObject": about}]
    return found


def ganged(group: str = "", *, first: str = "Pending") -> dict[str, Any]:
    """A run whose nodes are placed all at once, and what the scheduler says of them."""
    found = {**live(), "group": group}
    for pod in found["pods"]:
        pod["spec"] = {"schedulingGroup": {"podGroupName": "a"}}
        pod["status"] = {"phase": first if pod is found["pods"][0] else "Pending"}
    if group:
        said = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
        row = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
        found["pods"][1]["status"]["conditions"] = [row]
    return found


def leaving() -> dict[str, Any]:
    """A run whose namespace is being deleted."""
    found = live()
    found["job"]["namespaceEnds"] = True
    return found


def with_sidecar(code: int, sidecar: dict[str, Any], *, phase: str = "Running", **report: Any) -> dict[str, Any]:
    """A run of two nodes whose launchers have ended; beside each is a container of the cluster's."""
    found = live()
    message = json.dumps({"attempt": 1, "exit_code": code, "last_lines": [], **report}) if report else ""
    over = {"terminated": {"exitCode": code, "message": message, "finishedAt": "2026-01-01T00:00:00Z"}}
    rows = [{"name": "node", "state": over}, {"name": "mesh", "image": "mesh:2", "state": sidecar}]
    for pod in found["pods"]:
        pod["status"] = {"phase": phase, "containerStatuses": rows}
    return found


def with_init() -> dict[str, Any]:
    """A run whose launchers did not start, since a container that was to set up the network failed."""
    found = unpacking()
    for pod in found["pods"]:
        pod["status"]["initContainerStatuses"][0]["name"] = "mesh-init"
    return found


def unprovided(*events: str) -> dict[str, Any]:
    """A run that waits for a claim without a volume, about which there are events of these reasons."""
    about = {"kind": "PersistentVolumeClaim", "name": "slow"}
    spec = {"storageClassName": "fast"}
    said = [{"reason": reason, "message": f"{reason}!", "involvedObject": about} for reason in events]
    return {**live(), "events": said, "claims": [{"metadata": {"name": "slow"}, "spec": spec}]}


def again(*, up: bool) -> dict[str, Any]:
    """A run whose first attempt failed, and whose second is up, or has no pods yet."""
    found = recorded("rank-failed")
    found["job"]["status"], found["events"] = {"active": 2}, []
    newer = live(running=True)["pods"]
    for pod in newer:
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = "1"
        pod["metadata"]["name"] += "-2"
    found["pods"] += newer if up else []
    return found


def failed_create(found: dict[str, Any], message: str, when: str) -> dict[str, Any]:
    about = {"kind": "Job", "name": found["job"]["metadata"]["name"]}
    found["events"] = [{"reason": "FailedCreate", "message": message, "involvedObject": about, "lastTimestamp": when}]
    return found


def conditions(kind: str, reason: str = "FailedIndexes") -> dict[str, Any]:
    found = live()
    found["job"]["status"]["conditions"] = [{"type": kind, "status": "True", "reason": reason}]
    found["pods"] = []
    return found


def unstarted(message: str) -> dict[str, Any]:
    """A run whose containers were made and could not be started, as it is after the last attempt."""
    found = failed()
    for pod in found["pods"]:
        state(pod)["terminated"] = {"exitCode": 128, "reason": "StartError", "message": message}
    return found


def gone(reason: str, sentence: str) -> dict[str, Any]:
    """A run that has failed, whose pods are gone, and whose claim has failure.json."""
    report = {"reason": reason, "sentence": sentence, "node": 1, "last_lines": ["step 9"]}
    return {**conditions("Failed"), "kept": report}


FORBIDDEN = 'Error creating: pods "a" is forbidden:'
USED_UP = f"{FORBIDDEN} exceeded quota: q, requested: pods=1,cpu=2, used: pods=2,cpu=3, limited: pods=2,cpu=4"
GANG = "minCount (2) cannot be satisfied: 1 scheduled, 0 remaining"
UNSAID = f"{FORBIDDEN} failed quota: q: must specify limits.cpu for: node,unpack; memory for: node"
BOUNDS = (
    f"{FORBIDDEN} [maximum memory usage per Container is 1Gi, but limit is 2Gi, "
    "minimum cpu usage per Pod is 1.  No request is specified]"
)
RATIO = f"{FORBIDDEN} cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"
CLASH = (
    'Pod "a" is invalid: spec.containers[0].resources.requests: Invalid value: "8": '
    "must be less than or equal to cpu limit of 1"
)


def unscheduled(message: str) -> dict[str, Any]:
    found = recorded("unschedulable")
    for pod in found["pods"]:
        for condition in pod["status"].get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                condition["message"] = message
    return found


INSECURE = 'pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
DENIED = (
    'failed to resolve reference "registry.example/x:1": pull access denied, repository does not exist or may require '
    "authorization: server message: insufficient_scope: authorization failed"
)

SAID: list[tuple[str, dict[str, Any], str]] = [
    ("succeeded", conditions("Complete"), "has succeeded"),
    ("quota too small", recorded("quota"), "the quota small allows pods 0 in all, and the job needs 1"),
    ("quota", refused(USED_UP), "the quota q has pods 2 of 2 in use, and each node of the job needs 1"),
    ("amount missing", refused(UNSAID), "limits.cpu and memory, so every pod has to say it: use --cpu-limit and --mem"),
    ("limit range", refused(BOUNDS), "memory of at most 1Gi a container, and its limit is 2Gi; cpu of at least 1"),
    ("limit range", refused(RATIO), "a cpu limit of at most 2 times the request a container, and it is more"),
    ("amounts clash", refused(CLASH), "8 of cpu is asked for, and the limit is 1, as a limit range sets it by"),
    ("pod security", refused(INSECURE), "runAsNonRoot"),
    ("webhook", refused('admission webhook "policy.example" denied the request: no owner'), "no owner"),
    ("not admitted", recorded("not-admitted"), "every pod names its owner"),
    ("namespace", leaving(), "which is being deleted"),
    ("namespace", leaving(), "`stackctl cancel r-rank` removes the run"),
    ("sidecar", with_sidecar(0, {"running": {}}), "the container mesh on 2 of 2 nodes (0, 1)"),
    ("sidecar", with_sidecar(0, {"running": {}}), "| mesh: mesh:2"),
    ("sidecar", with_sidecar(3, {"running": {}}, reason="rank-failed", sentence="rank 1 failed first"),
     "before that, r-rank: rank 1 failed first"),
    ("sidecar failed", with_sidecar(0, {"terminated": {"exitCode": 2}}, phase="Failed"), "mesh of node 0 with exit co"),
    ("sidecar failed", with_init(), "mesh-init of node 0 with exit code 1"),
    ("queued", live(suspend=True), "waits in its queue"),
    ("no job", unmade("admission webhook denied it"), "of which nobody has made a Job\n  | admission"),
    ("claim", unscheduled("0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."), "|"),
    ("claim", unscheduled("0/2 nodes are available: 2 node(s) had volume node affinity conflict."), "affinity"),
    ("claim", unscheduled('running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'), "|"),
    ("unschedulable", unscheduled("1 Insufficient cpu, 1 node(s) had volume node affinity conflict."), "cpu"),
    ("claim", unprovided("WaitForFirstConsumer", "ExternalProvisioning"), "slow (storage class fast)"),
    ("claim", unprovided("WaitForFirstConsumer", "ExternalProvisioning"), "| ExternalProvisioning!"),
    ("claim", unprovided("WaitForFirstConsumer"), "| WaitForFirstConsumer!"),
    ("claim", unprovided("ExternalProvisioning", "ProvisioningFailed"), "| ProvisioningFailed!"),
    ("claim", recorded("claim"), 'persistentvolumeclaim "absent" not found'),
    ("unschedulable", recorded("unschedulable"), "1 of 3 nodes (1) (2 Insufficient nvidia.com/gpu)"),
    ("unschedulable", recorded("unschedulable-memory"), "1 of 1 nodes (0) (2 Insufficient memory)"),
    ("gang", ganged(GANG), "has no room for all 2 nodes (2 Insufficient nvidia.com/gpu)"),
    ("gang", ganged(GANG), f"| {GANG}"),
    ("gang broken", ganged(first="Succeeded"), "waits for ever: node 1 to be placed together with node 0"),
    ("starting", ganged(), "2 of 2 nodes (0, 1)"),
    ("image unauthorized", waiting("ErrImagePull", DENIED), "registry.example/x:1"),
    ("image not found", waiting("ImagePullBackOff", 'failed to resolve reference "x:1": x:1: not found'), "x:1"),
    ("image unauthorized", waiting("ErrImagePull", "unexpected status: 401 Unauthorized"), "on node-"),
    ("image pull", recorded("image-unreachable"), "no route to host"),
    ("image pulling", pulling(), "still pulls its image"),
    ("secret", recorded("secret"), 'secret "absent" not found'),
    ("no python", waiting("RunContainerError", 'exec: "python": executable file not found in $PATH'), "python"),
    ("not started", waiting("CreateContainerError", "context deadline exceeded"), "deadline"),
    ("configuration", recorded("configuration"), "0 visible GPUs for STACK_PROCS=1"),
    ("unpack", unpacking(), "not a gzip file"),
    ("out of memory", recorded("out-of-memory"), "ran out of memory: node 0"),
    ("evicted", evicted(), "total limit of containers 10Mi"),
    ("node lost", disrupted("DeletionByPodGC", "PodGC: node no longer exists"), "ran on node-"),
    ("node lost", ended(75, reason="node-lost", node=1, sentence="node 1 of 2 (host node-b) was lost"), "host node-b"),
    ("disrupted", disrupted("EvictionByEvictionAPI", "Eviction API: evicting"), "evicting"),
    ("rank failed", recorded("rank-failed"), "rank 1 (node 1, local rank 0, host node-1) failed first"),
    ("rank failed", recorded("rank-failed"), "| ValueError: loss is nan"),
    ("rank failed", gone("rank-failed", "rank 1 failed first"), "| step 9"),
    ("configuration", gone("config", "0 visible GPUs"), "0 visible GPUs"),
    ("no python", unstarted('exec: "python": executable file not found in $PATH'), "for node 0 on node-"),
    ("no service", {**live(), "service": False}, "submit it again"),
    ("peers missing", recorded("peers-missing"), "nodes 1, 2 of 3 never came within 5 s"),
    ("disrupted", ended(143), "was told to stop with the others"),
    ("ended", failed(), "| OSError: broken"),
    ("failed", conditions("Failed"), "FailedIndexes"),
    ("deadline", conditions("Failed", "DeadlineExceeded"), "it took longer than its --deadline"),
    ("starting", live(), "2 of 2 nodes (0, 1)"),
    ("starting", live(pods=False), "2 of its pods are not there yet"),
    ("running", live(running=True), "attempt 1"),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "found", "said"), SAID, ids=[f"{row[0]}-{n}" for n, row in enumerate(SAID)])
def test_each_cause_is_found_and_said_with_its_evidence(cause: str, found: dict[str, Any], said: str) -> None:
    why = explain(facts(found))
    assert why.cause == cause, why.text
    assert said in why.text
    assert "{" not in why.sentence.replace(found["job"]["metadata"]["name"], "")


def test_no_cause_is_left_without_a_test() -> None:
    assert {cause.name for cause in CAUSES} == {row[0] for row in SAID}


def test_a_failed_run_is_not_said_to_wait() -> None:
    found = recorded("rank-failed")
    found["events"] = [{"reason": "FailedCreate", "message": "exceeded quota", "involvedObject":
                        {"kind": "Job", "name": found["job"]["metadata"]["name"]}}]  # fmt: skip
    assert explain(facts(found)).cause == "rank failed"


def test_a_pod_that_ends_with_its_failed_job_was_not_interrupted() -> None:
    found = recorded("peers-missing")
    [first] = [pod for pod in found["pods"] if pod["status"].get("containerStatuses")]
    other = copy.deepcopy(first)
    other["metadata"]["name"] += "-2"
    over = other["status"]["containerStatuses"][0]["state"]["terminated"]
    other["status"]["containerStatuses"][0]["state"]["terminated"] = {**over, "exitCode": 143, "message": ""}
    found["pods"].append(other)
    found["job"]["status"]["conditions"] = []
    assert explain(facts(found)).cause == "disrupted"
    found["job"]["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "FailedIndexes"}]
    assert explain(facts(found)).cause == "peers missing"


REFUSED = 'Error creating: pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4'
LIMITED = 'Error creating: pods "a" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi'


@pytest.mark.parametrize(("message", "cause"), [(REFUSED, "quota"), (LIMITED, "limit range")])
def test_a_replacement_that_is_refused_is_explained_by_that(message: str, cause: str) -> None:
    why = explain(facts(failed_create(again(up=False), message, "2999-01-01T00:00:00Z")))
    assert why.cause == cause
    assert "rank 1 (node 1" in why.before
    assert "| ValueError: loss is nan" in why.text


def test_what_was_refused_before_the_failure_is_past() -> None:
    assert explain(facts(failed_create(again(up=False), REFUSED, "2000-01-01T00:00:00Z"))).cause == "rank failed"
    assert explain(facts(failed_create(again(up=True), REFUSED, "2999-01-01T00:00:00Z"))).cause == "running"


def test_a_run_that_is_up_again_runs() -> None:
    why = explain(facts(again(up=True)))
    assert (why.cause, why.sentence) == ("running", "r-rank runs: attempt 2")
    assert "rank 1 (node 1" in why.before


def test_a_run_one_of_whose_pods_is_being_ended_is_not_up() -> None:
    found = again(up=True)
    drained = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}
    found["pods"][-1]["status"]["conditions"] = [drained]
    assert explain(facts(found)).cause == "disrupted"


def test_a_volume_that_has_been_mounted_since_blocks_nothing() -> None:
    found = pulling()
    about = found["events"][0]["involvedObject"]
    found["events"].insert(0, {"reason": "FailedMount", "message": "secret not found", "involvedObject": about})
    assert explain(facts(found)).cause == "image pulling"


def test_what_the_cluster_has_added_is_told_while_a_run_runs() -> None:
    found = live(running=True)
    found["pods"][0]["status"]["containerStatuses"].append({"name": "mesh", "state": {"running": {}}})
    assert "must end by itself: mesh" in explain(facts(found)).sentence


def test_a_run_that_waits_for_a_node_tells_what_ended_it_before() -> None:
    found = recorded("unschedulable")
    lost = ended(75, reason="node-lost", node=1, sentence="node 1 of 2 (host node-b) was lost")["pods"][0]
    found["pods"].append(lost)
    lost["metadata"]["annotations"] = {"batch.kubernetes.io/job-completion-index": "0"}
    why = explain(facts(found))
    assert why.cause == "unschedulable"
    assert why.text.endswith("before that, v-room lost a node: node 1 of 2 (host node-b) was lost")
