"""What can be known before anything is created: permissions, namespace, claims, quota, room. Each one clear error.

Each check has questions, of which all are asked at once, and judges the answers. One that may not be asked is not
checked, and that is said.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import msgspec

from stackctl.engines.kube import Cluster, Object
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.engines.kube_paths import address
from stackctl.errors import InvalidInput, MissingHere, did_you_mean
from stackctl.jobs import kubernetes
from stackctl.jobs.placement import PACKED, Placement, Volume
from stackctl.jobs.via import MANAGERS
from stackctl.runs import admission, feasibility, holders, pod_checks, queue_reader
from stackctl.runs.admission import Refusal
from stackctl.runs.asked_before import CHECKS
from stackctl.runs.bounds import LimitRange, PodSpec, Quota
from stackctl.runs.submission import Submission

NEEDED = (
    ("get", "batch", "jobs"),
    ("create", "", "services"),
    ("create", "", "secrets"),
    ("create", "networking.k8s.io", "networkpolicies"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
"""What submitting, watching and cancelling take beside what is in `_needed`: verb, API group, resource."""

_SHARED = {"ReadWriteMany"}
_AT_ONCE = 8

_Ask = Callable[[], Any]


class _Answers:
    """What the cluster answers to the questions of all checks."""

    def __init__(self, futures: Mapping[str, Future[Any]]) -> None:
        self._futures = futures

    def of(self, key: str) -> Any:
        """An answer; raises what the question raised."""
        return self._futures[key].result()

    def ranges(self) -> list[LimitRange] | None:
        """The namespace's limit ranges; None where we may not see them."""
        with where_allowed():
            found: list[LimitRange] = self.of("ranges")
            return found
        return None

    def pod(self, submission: Submission) -> PodSpec:
        """A pod of the job, with what its runtime class takes for itself."""
        runtime = None
        with where_allowed():
            runtime = self.of("runtime") if "runtime" in self._futures else None
        overhead = ((runtime or {}).get("overhead") or {}).get("podFixed") or {}
        return msgspec.structs.replace(msgspec.convert(submission.pod, PodSpec), overhead=overhead)


class _Check(NamedTuple):
    """Questions by key, which checks may share, and what the answers come to: notes, or an error that is raised."""

    asks: Callable[[Cluster, Submission], Mapping[str, _Ask]]
    judge: Callable[[Submission, _Answers], Sequence[str]]


def check(cluster: Cluster, submission: Submission, skip: Collection[str] = ()) -> list[str]:
    """Ask the cluster for the namespace, then for everything at once; return what is worth telling.

    Args:
        skip: Names of CHECKS that are left out.

    Raises:
        ApiError: It does not answer, or does not accept us.
        MissingHere: A permission, the namespace, a claim, quota or room is missing; says which.
        InvalidInput: The job cannot work as it was asked for; or there is no check of a name.
    """
    for name in skip:
        if name not in CHECKS:
            hint = f"{did_you_mean(name, CHECKS)} There are: {', '.join(CHECKS)}"
            raise InvalidInput("there is no such check", where=f"--skip-check {name}", hint=hint)
    if "namespace" not in skip:  # alone: of a cluster that does not answer all would wait in turn
        _check_namespace(cluster, submission.placement.namespace)
    table = {name: row for name, row in _TABLE.items() if name not in skip}
    questions = {key: ask for row in table.values() for key, ask in row.asks(cluster, submission).items()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = _Answers({key: pool.submit(ask) for key, ask in questions.items()})
    said: list[str] = []
    unseen: list[str] = []
    for name, row in table.items():
        try:
            said += row.judge(submission, answers)
        except ApiError as error:
            # What admission forbids is an answer, and not a want of permission.
            if error.status != 403 or (name == "admission" and error.reason != "RBAC"):
                raise
            unseen.append(f"{name}{_lacking(error)}")
        except (MissingHere, InvalidInput) as error:
            error.hint = "; ".join(filter(None, [error.hint, f"--skip-check {name} submits it all the same"]))
            raise
    return [*said, *([f"not checked, since you may not ask the cluster: {', '.join(unseen)}"] if unseen else [])]


def _lacking(error: ApiError) -> str:
    """Which permission an error speaks of."""
    found = re.search(r'cannot (\w+) resource "([^"]+)"', error.message)
    return f" ({found[1]} {found[2]})" if found else ""


def _check_namespace(cluster: Cluster, name: str) -> None:
    missing = False
    with (
        where_allowed()
    ):  # a submitter may be allowed nothing outside their namespace; where there is none, not even in it
        missing = cluster.get("Namespace", name) is None
    if missing:
        raise MissingHere(
            "the cluster has no such namespace",
            where=f"--namespace {name}",
            hint=f"create it (`kubectl create namespace {name}`; docs/kubernetes.md), or choose another",
        )


def _asks_access(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    namespace = submission.placement.namespace
    return {" ".join(row): partial(_allowed, cluster, namespace, row) for row in _needed(submission)}


def _needed(submission: Submission) -> list[tuple[str, str, str]]:
    """What this submission takes: of what stands for the run, and stands before it, all but to list it."""
    own = [(row["apiVersion"].rpartition("/")[0], address(row["kind"]).rpartition("/")[2]) for row in
           [submission.run, *submission.before]]  # fmt: skip
    sends = [("create", "batch", "jobs"), ("get", "", "pods/exec"), ("create", "", "pods/exec")]
    mine = [(verb, *row) for row in own for verb in ("create", "get", "delete")]
    return list(dict.fromkeys([*mine, *NEEDED, *(sends if submission.tree else [])]))


def _allowed(cluster: Cluster, namespace: str, row: tuple[str, str, str]) -> bool:
    verb, group, resource = row
    resource, _, part = resource.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
    review: Object = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
    answer, _ = cluster.create({**review, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))


def _judge_access(submission: Submission, answers: _Answers) -> list[str]:
    needed = _needed(submission)
    missing = [f"{verb} {resource}" for verb, group, resource in needed if not answers.of(f"{verb} {group} {resource}")]
    if missing:
        raise MissingHere(
            f"you may not {', '.join(missing)} in the namespace {submission.placement.namespace}",
            hint="ask its owner for the role in k8s/base/rbac.yaml, or choose another --namespace",
        )
    return []


def _asks_claims(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    kind, namespace = "PersistentVolumeClaim", submission.placement.namespace
    claims = {row.claim for _, row in _volumes(submission.placement)}
    return {f"claim {claim}": partial(cluster.get, kind, claim, namespace) for claim in claims}


def _volumes(placement: Placement) -> list[tuple[str, Volume]]:
    """The claims of a job, with the option that names each; of the code's every pod reads only."""
    rows = [("--volume", volume) for volume in placement.volumes]
    code = Volume(placement.code_claim, PACKED, read_only=True)
    named = placement.code_claim in {volume.claim for volume in placement.volumes}
    return [*rows, *([("--code-claim", code)] if placement.code_claim and not named else [])]


def _judge_claims(submission: Submission, answers: _Answers) -> list[str]:
    for option, volume in _volumes(submission.placement):
        found = answers.of(f"claim {volume.claim}")
        _check_claim(option, volume, found, submission.job.nodes, submission.placement.namespace)
    return []


def _check_claim(option: str, volume: Volume, claim: Object | None, nodes: int, namespace: str) -> None:
    where = f"{option} {volume.claim}"
    if claim is None:
        raise MissingHere(
            f"the namespace {namespace} has no such claim", where=where, hint="`kubectl get pvc` lists them"
        )
    modes = set(claim.get("spec", {}).get("accessModes") or [])
    if claim.get("status", {}).get("phase") == "Lost":
        raise MissingHere("its volume is lost", where=where)
    if nodes > 1 and not (modes & _SHARED or (volume.read_only and "ReadOnlyMany" in modes)):
        raise InvalidInput(
            f"can be mounted by one node at a time ({', '.join(sorted(modes))}), and the job has {nodes}",
            where=where,
            hint="use a claim with the access mode ReadWriteMany, or a single node",
        )


def _asks_priority(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    name = submission.placement.priority
    return {"priority": lambda: cluster.get("PriorityClass", name)} if name else {}


def _judge_priority(submission: Submission, answers: _Answers) -> list[str]:
    name = submission.placement.priority
    if name and answers.of("priority") is None:
        hint = "`kubectl get priorityclasses` lists them"
        raise MissingHere("the cluster has no such class", where=f"--priority {name}", hint=hint)
    return []


def _asks_runtime(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    name = submission.placement.profile.runtime_class
    return {"runtime": lambda: cluster.get("RuntimeClass", name)} if name else {}


def _judge_runtime(submission: Submission, answers: _Answers) -> list[str]:
    name = submission.placement.profile.runtime_class
    if name and answers.of("runtime") is None:
        hint = "`kubectl get runtimeclasses` lists them; the profile names this one"
        raise MissingHere(f"the cluster has no runtime class {name}", where="--profile", hint=hint)
    return []


def _asks_queue(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    job, placement = submission.job, submission.placement
    asked = (cluster, placement.namespace, placement.queue, kubernetes.requests(job, placement))
    return {"queue": lambda: queue_reader.check(*asked, nodes=job.nodes)} if placement.queue else {}


def _judge_queue(submission: Submission, answers: _Answers) -> list[str]:
    queue = submission.placement.queue
    if not queue:
        return []
    problem, notes = answers.of("queue")
    if problem:
        raise MissingHere(problem, where=f"--queue {queue}")
    return list(notes)


def _asks_limits(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    namespace = submission.placement.namespace
    return {"ranges": lambda: cluster.items("LimitRange", LimitRange, namespace), **_asks_runtime(cluster, submission)}


def _judge_limits(submission: Submission, answers: _Answers) -> list[str]:
    found = admission.judge(answers.pod(submission), answers.of("ranges"), [])
    _raise(found, submission, "ask for what it allows")
    return []


def _asks_quota(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    placement = submission.placement
    return {"quotas": lambda: _quotas(cluster, placement), **_asks_limits(cluster, submission)}


def _quotas(cluster: Cluster, placement: Placement) -> tuple[list[Quota], str]:
    """The namespace's quotas, and the pods' priority class, since there are quotas for classes."""
    found = cluster.items("ResourceQuota", Quota, placement.namespace)
    by_class = any(scope.scope_name == "PriorityClass" for quota in found for scope in quota.scopes)
    return found, placement.priority or (_default_priority(cluster) if by_class else "")


def _default_priority(cluster: Cluster) -> str:
    """The class of pods that name none."""
    with where_allowed():
        rows = cluster.items("PriorityClass", dict)
        return next((str(row["metadata"]["name"]) for row in rows if row.get("globalDefault")), "")
    return ""


def _judge_quota(submission: Submission, answers: _Answers) -> list[str]:
    (quotas, priority), ranges = answers.of("quotas"), answers.ranges()
    placement, nodes = submission.placement, submission.job.nodes
    pod = admission.filled(answers.pod(submission), ranges or [])
    pod = msgspec.structs.replace(pod, priority_class_name=priority)
    # A queue waits until the quota has room; it only must be enough at all.
    found = [
        row
        for quota in quotas
        for row in admission.judge_quota(pod, quota, pods=nodes, empty=bool(placement.queue))
        if ranges is not None or row.kind != "unsaid"  # a limit range that we may not see may say it
    ]
    makes = MANAGERS[placement.via].makes if placement.via in MANAGERS else ()
    found += admission.judge_objects(Counter([*map(counted, submission.manifests), *makes]), quotas)
    never = any(row.kind == "too small" for row in found)
    _raise(found, submission, f"ask for less, or {'have it raised' if never else 'wait for other runs'}")
    return list(_attempts(pod, quotas, nodes, placement.retries))


def counted(manifest: Object) -> str:
    """What quotas call the kind of an object."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    return address(manifest["kind"]).rpartition("/")[2] + (f".{group}" if slash else "")


def _attempts(pod: PodSpec, quotas: Sequence[Quota], nodes: int, retries: int) -> Iterator[str]:
    """Ended pods count as objects for as long as the job is there, so each attempt takes some more."""
    pods = nodes * (1 + retries)
    for quota in quotas:
        for row in admission.judge_quota(pod, quota, pods=pods):
            if row.resources == ("count/pods",):
                yield f"{row.sentence} for all its attempts, since ended pods count: new ones may have to wait"


def _raise(found: Sequence[Refusal], submission: Submission, advice: str) -> None:
    if found:
        text = "\n  ".join(dict.fromkeys(row.text for row in found))
        told = all(row.options for row in found)
        raise MissingHere(text, where=f"namespace {submission.placement.namespace}", hint="" if told else advice)


def _asks_admission(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    # A manager's admission looks for what must be there before, so with such a thing only that can be shown.
    return {"trial": lambda: _trial(cluster, submission.manifests[0])}


def _trial(cluster: Cluster, manifest: Object) -> list[str]:
    """What the cluster warns of when it is shown the Job, or what a manager makes it from."""
    try:
        return cluster.create(manifest, dry_run=True)[1]
    except ApiError as error:
        if error.reason == "AlreadyExists":  # for `create` to judge: it may be this very job
            return []
        raise


def _judge_admission(_: Submission, answers: _Answers) -> list[str]:
    return [f"the cluster warns: {text}" for text in answers.of("trial")]


def _asks_room(cluster: Cluster, submission: Submission) -> dict[str, _Ask]:
    return {
        "nodes": lambda: cluster.items("Node", feasibility.Node, resourceVersion="0"),
        "pods": lambda: cluster.items("Pod", feasibility.Pod, fieldSelector=holders.PLACED, resourceVersion="0"),
        **_asks_limits(cluster, submission),
    }


def _judge_room(submission: Submission, answers: _Answers) -> list[str]:
    job, placement = submission.job, submission.placement
    pod = admission.filled(answers.pod(submission), answers.ranges() or [])
    need = {name: amount for name, amount in admission.requests(pod).items() if amount}
    nodes, pods = answers.of("nodes"), answers.of("pods")
    spec = submission.pod
    found = feasibility.room(
        pod_checks.takers(nodes, placement.pods),
        [] if placement.queue else pods,  # a queue waits for room; it only must be there at all
        need,
        selector=spec.get("nodeSelector") or {},
        tolerations=pod_checks.tolerations(spec),
        apart=placement.apart or placement.pods.host_network,
    )
    problem = feasibility.refusal(found, nodes=job.nodes, need=need)
    if not problem:
        return []
    if found.ever < job.nodes:
        never = f"the cluster could never hold more than {found.ever}: ask for fewer nodes"
        none = "no node could ever take it: ask for less on each"
        raise MissingHere(problem, hint=never if found.ever else none)
    part = found.now and job.nodes > 1 and not placement.queue
    alone = f"a node that has a place then gives it back after {job.timeout} s (--timeout)"
    together = "its nodes then hold nothing until all have a place"
    held = f"; {together if placement.gang else alone}" if part else ""
    raise MissingHere(problem, hint=f"wait for what runs there, or ask for less{held}")


_TABLE = {
    "access": _Check(_asks_access, _judge_access),
    "claims": _Check(_asks_claims, _judge_claims),
    "pods": _Check(pod_checks.asks, pod_checks.judge),
    "priority": _Check(_asks_priority, _judge_priority),
    "runtime": _Check(_asks_runtime, _judge_runtime),
    "queue": _Check(_asks_queue, _judge_queue),
    "limits": _Check(_asks_limits, _judge_limits),
    "quota": _Check(_asks_quota, _judge_quota),
    "admission": _Check(_asks_admission, _judge_admission),
    "room": _Check(_asks_room, _judge_room),
}
"""In the order of CHECKS, which is the order in which they are told."""
