"""The plan of a job in Kubernetes: an Indexed Job, its headless Service, a Secret and a NetworkPolicy. Pure.

Plain dictionaries, as Kubernetes' own schema has them; the tests hold them against that schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from stackctl.jobs import code_on_claim, gang, lengths, mesh, mounts, patch, pod_options, via, yaml_text
from stackctl.jobs.job import INIT, STOP_MARGIN, Job, contract, launcher
from stackctl.jobs.placement import OUT, PACKED, WORKSPACE, Placement
from stackctl.jobs.pod_options import USER, PodSettings
from stackrt.contract import CONFIG, PORT, STOPPED

Manifest = dict[str, Any]

RUN_LABEL, WORKLOAD_LABEL = "stackctl.io/run", "stackctl.io/workload"
JOB_NOTE, DIGEST_NOTE, CODE_NOTE = "stackctl.io/job", "stackctl.io/digest", "stackctl.io/code"
MANAGED = {"app.kubernetes.io/managed-by": "stackctl"}
SELECTOR = f"{RUN_LABEL},app.kubernetes.io/managed-by=stackctl"
"""Selects runs."""

INDEX_NOTE = "batch.kubernetes.io/job-completion-index"
FAILURES_NOTE = "batch.kubernetes.io/job-index-failure-count"
DISRUPTIONS_NOTE = "batch.kubernetes.io/job-index-ignored-failure-count"
"""The Job controller counts how often each index was replaced: after a failure, and after what does not count."""

HOSTNAME = "kubernetes.io/hostname"
"""The label that tells a cluster's machines apart."""

CONTAINER, UNPACK = "node", "unpack"
COUNTED = ("cpu", "memory", "ephemeral-storage")
"""Amounts that every container has; what else a pod asks for is a device."""

TOKEN_KEY, CODE_KEY = "token", "code.tgz"


def manifests(
    job: Job, placement: Placement, *, token: str, packed: str = "", values: Mapping[str, str] | None = None
) -> list[Manifest]:
    """Every object of a job, as it is to be created.

    `run_of` tells the one that stands for the run: it owns those behind it, and what stands before it must be there
    first.

    Args:
        token: The run's secret.
        packed: The shipped code: a gzipped tar archive in base64.
        values: What else the run's own Secret holds, by its keys: the Job only has these.

    Raises:
        InvalidInput: The job's words are too long for a cluster.
    """
    lengths.check(job)
    via.check(job, placement.via)
    return [
        *_run(job, placement),
        *gang.groups(placement.gang, _metadata(job, placement), job.nodes, placement.priority),
        _secret(job, placement, {TOKEN_KEY: token, **(values or {})}, packed),
        *([_service(job, placement)] if placement.via == via.JOB else []),  # a manager makes one of this name
        _policy(job, placement),
    ]


def run_of(objects: Sequence[Manifest]) -> int:
    """Which of a job's objects stands for the run: the Job, or what a manager makes it from."""
    return next(number for number, row in enumerate(objects) if JOB_NOTE in row["metadata"].get("annotations", {}))


def digest(manifest: Manifest) -> str:
    """What tells whether a run in the cluster is the one that would be submitted."""
    return str(manifest["metadata"]["annotations"][DIGEST_NOTE])


def owned(manifest: Manifest, run: Manifest, uid: str) -> Manifest:
    """The object as a dependent of what stands for the run, which has this uid: it goes when the run goes."""
    owner = {key: run[key] for key in ("apiVersion", "kind")} | {"name": run["metadata"]["name"], "uid": uid}
    metadata = {**manifest["metadata"], "ownerReferences": [{**owner, "controller": True}]}
    return {**manifest, "metadata": metadata}


def to_yaml(objects: list[Manifest]) -> str:
    """Several objects as one YAML text, which `kubectl apply -f -` takes."""
    return "---\n".join(map(yaml_text.to_yaml, objects))


def as_list(objects: list[Manifest]) -> Manifest:
    """The same as one object, as for JSON."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def _metadata(job: Job, placement: Placement, annotations: Mapping[str, str] | None = None) -> Manifest:
    row: Manifest = {"name": job.name, "namespace": placement.namespace, "labels": _labels(job, placement.pods)}
    return {**row, "annotations": dict(annotations)} if annotations else row


def _labels(job: Job, pods: PodSettings) -> dict[str, str]:
    workload = {WORKLOAD_LABEL: job.workload} if job.workload else {}
    return {**MANAGED, RUN_LABEL: job.name, **workload, **pods.labels}


def _run(job: Job, placement: Placement) -> list[Manifest]:
    """What stands for the run, with its digest, and what must be there before it, which has the same one."""
    made = via.wrapped(_job(job, placement), placement.via, placement.api)
    digest = hashlib.sha256()
    for row in made:
        digest.update(msgspec.json.encode(row, order="sorted"))
    for row in made:
        row["metadata"]["annotations"] = {**row["metadata"].get("annotations", {}), DIGEST_NOTE: digest.hexdigest()}
    return made


def _job(job: Job, placement: Placement) -> Manifest:
    spec: Manifest = {
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # One failure ends every launcher, so each index is replaced once an attempt; the first index that has used up
        # its retries fails the Job.
        "backoffLimitPerIndex": placement.retries,
        "maxFailedIndexes": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        **({"activeDeadlineSeconds": placement.pods.deadline} if placement.pods.deadline else {}),
        "ttlSecondsAfterFinished": placement.kept,
        **({"suspend": True} if placement.queue else {}),
        **gang.of_job(placement.gang, job.nodes),
        "template": _template(job, placement),
    }
    metadata = _metadata(job, placement, {**placement.pods.annotations, JOB_NOTE: msgspec.json.encode(job).decode()})
    if placement.queue:
        metadata["labels"]["kueue.x-k8s.io/queue-name"] = placement.queue
    if placement.code:
        metadata["annotations"][CODE_NOTE] = placement.code
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def _template(job: Job, placement: Placement) -> Manifest:
    """The pods' template, with a person's patch over it."""
    pods = placement.pods
    notes = {**mesh.ANNOTATIONS, **_topology(placement), **placement.profile.annotations, **pods.annotations}
    metadata = {"labels": {**_labels(job, pods), **mesh.LABELS, **pods.labels}, "annotations": notes}
    made = {"metadata": metadata, "spec": _pod(job, placement)}
    if not pods.patch:
        return made
    from stackrt.launch.rank_env import layout_names

    grace, gpu = made["spec"]["terminationGracePeriodSeconds"], placement.profile.gpu
    taken = frozenset(layout_names())
    return patch.apply(made, pods.patch, node=CONTAINER, unpack=UNPACK, gpu=gpu, grace=grace, taken=taken)


def _topology(placement: Placement) -> dict[str, str]:
    """What Kueue reads to keep the pods together: within one value of a label of their nodes."""
    if not placement.topology:
        return {}
    label, _, preferred = placement.topology.partition(":")
    return {f"kueue.x-k8s.io/podset-{preferred or 'required'}-topology": label}


def _failure_rules() -> list[Manifest]:
    return [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [CONFIG]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        # When one node is drained or preempted its launcher stops the ranks of all, and every launcher ends so.
        {
            "action": "Ignore",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [STOPPED]},
        },
    ]


def _pod(job: Job, placement: Placement) -> Manifest:
    spec: Manifest = {
        "subdomain": job.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace + STOP_MARGIN,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(placement.pods.user, placement.pods.group),
        **pod_options.fields(placement.pods),
        **gang.of_pod(placement.gang, job.name),
    }
    if placement.priority:
        spec["priorityClassName"] = placement.priority
    if placement.profile.runtime_class:
        spec["runtimeClassName"] = placement.profile.runtime_class
    spec |= pod_options.node_choice(placement.pods, placement.profile)
    if placement.apart:
        same = {"labelSelector": {"matchLabels": {RUN_LABEL: job.name}}, "topologyKey": HOSTNAME}
        apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [same]}}
        spec["affinity"] = {**spec.get("affinity", {}), **apart}
    if placement.code:
        spec["initContainers"] = [_unpack(job, placement)]
    spec["containers"] = [_container(job, placement)]
    spec["volumes"] = _pod_volumes(job, placement)
    return spec


def pod_of(manifest: Manifest) -> Manifest:
    """The pods' spec of an object that holds it: a Job, or what a manager makes one from."""
    spec: Manifest = (via.template_of(manifest) or {})["template"]["spec"]
    return spec


def security(user: int = USER, group: int = USER) -> Manifest:
    """A pod's user, as the `restricted` pod security standard wants it."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(job: Job, placement: Placement) -> Manifest:
    rows = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108 - shared memory
    if not placement.claim:
        rows.append({"name": "out", "mountPath": OUT})
    if placement.code:
        rows.append({"name": "workspace", "mountPath": WORKSPACE})
    claims = [
        {"name": f"claim-{number}", "mountPath": volume.path, **({"readOnly": True} if volume.read_only else {})}
        for number, volume in enumerate(placement.volumes)
    ]
    # The scheduler keeps pods apart that want the same port of a node: whoever has a node's network has its ports.
    ports = {"ports": [{"containerPort": PORT, "hostPort": PORT}]} if placement.pods.host_network else {}
    row: Manifest = {
        "name": CONTAINER,
        "image": placement.image,
        "imagePullPolicy": placement.pods.pull_policy,
        "command": [_literal(word) for word in (*INIT, *launcher("python", job))],
        **({"workingDir": WORKSPACE} if placement.code else {}),
        **ports,
        "env": _environment(job, placement),
        "resources": _resources(job, placement),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": confined(),
        "volumeMounts": [*rows, *claims, *mounts.points(placement.pods.mounts, _claims(placement))],
    }
    return row


def _unpack(job: Job, placement: Placement) -> Manifest:
    on_claim = code_on_claim.unpack(PACKED, placement.code, WORKSPACE) if placement.code_claim else None
    packed = ["python", "-m", "tarfile", "-e", f"{PACKED}/{CODE_KEY}", WORKSPACE]
    return {
        "name": UNPACK,
        "image": placement.image,
        "imagePullPolicy": placement.pods.pull_policy,
        "command": [_literal(word) for word in on_claim or packed],
        "resources": _first_resources(job, placement),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": confined(),
        "volumeMounts": [
            {"name": _claims(placement).get(placement.code_claim, "packed"), "mountPath": PACKED, "readOnly": True},
            {"name": "workspace", "mountPath": WORKSPACE},
        ],
    }


def confined() -> Manifest:
    """A container's rights: none."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _environment(job: Job, placement: Placement) -> list[Manifest]:
    """The launch contract. What differs between pods comes from their own annotations, so one template does."""
    # With a claim, runs share it: each has a folder of its own there.
    out = f"{OUT}/{job.name}" if placement.claim else OUT
    given = contract(job, 0, rendezvous=f"{via.job_name(job.name, placement.via)}-0.{job.name}:{PORT}", out=out)
    varying: dict[str, list[Manifest]] = {
        "STACK_NODE_RANK": [{"name": "STACK_NODE_RANK", "valueFrom": _annotation(INDEX_NOTE)}],
        "STACK_ATTEMPT": [
            {"name": "JOB_FAILURES", "valueFrom": _annotation(FAILURES_NOTE)},
            {"name": "JOB_DISRUPTIONS", "valueFrom": _annotation(DISRUPTIONS_NOTE)},
            {"name": "STACK_ATTEMPT", "value": "1+$(JOB_FAILURES)+$(JOB_DISRUPTIONS)"},
        ],
    }
    rows: list[Manifest] = []
    profile = placement.profile
    promised = {} if profile.fabric == "any" else {"STACK_FABRIC": profile.fabric}
    for name, value in {**profile.env, **given, **promised}.items():
        rows += varying.get(name, [{"name": name, "value": _literal(value)}])
    # A pod's host name is the same on every machine that it may run on.
    rows.append({"name": "STACK_HOST", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    rows.append({"name": "STACK_TOKEN", "valueFrom": {"secretKeyRef": {"name": job.name, "key": TOKEN_KEY}}})
    for secret in placement.secret_env:
        source = {"secretKeyRef": {"name": secret.secret or job.name, "key": secret.key}}
        rows.append({"name": secret.name, "valueFrom": source})
    return rows


def _annotation(name: str) -> Manifest:
    return {"fieldRef": {"fieldPath": f"metadata.annotations['{name}']"}}


def _resources(job: Job, placement: Placement) -> Manifest:
    """GPUs, memory and disk as limits, which are requests too; of the CPU a limit only slows down, if none is asked."""
    limits = {placement.profile.gpu: str(job.gpus)} if job.gpus else {}
    limits |= placement.profile.resources
    given = {"memory": placement.memory, "ephemeral-storage": placement.ephemeral_storage, "cpu": placement.cpu_limit}
    limits |= {name: amount for name, amount in given.items() if amount}
    requests = {**limits, **({"cpu": placement.cpu} if placement.cpu else {})}
    if any(name.startswith("hugepages-") for name in limits) and not requests.keys() & {"cpu", "memory"}:
        requests["cpu"] = "1"  # huge pages are refused to a pod that asks for neither CPU nor memory
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _first_resources(job: Job, placement: Placement) -> Manifest:
    """What the container that unpacks may use: no more than the one after it, so the pod asks for no more.

    A quota on CPU or memory refuses a pod of which any container does not say them.
    """
    rows = {
        key: {name: amount for name, amount in amounts.items() if name in COUNTED}
        for key, amounts in _resources(job, placement).items()
    }
    return {key: amounts for key, amounts in rows.items() if amounts}


def requests(job: Job, placement: Placement) -> dict[str, str]:
    """What one node of the job asks of the cluster: resource -> quantity."""
    found: dict[str, str] = _resources(job, placement).get("requests", {})
    return found


def _pod_volumes(job: Job, placement: Placement) -> list[Manifest]:
    volumes: list[Manifest] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": placement.shm}}]
    if not placement.claim:
        volumes.append({"name": "out", "emptyDir": {}})
    if placement.code:
        volumes.append({"name": "workspace", "emptyDir": {}})
        secret = {"secretName": job.name, "items": [{"key": CODE_KEY, "path": CODE_KEY}]}
        if not placement.code_claim:
            volumes.append({"name": "packed", "secret": secret})
        elif placement.code_claim not in _claims(placement):
            volumes.append({"name": "packed", "persistentVolumeClaim": {"claimName": placement.code_claim}})
    for number, volume in enumerate(placement.volumes):
        claim = {"claimName": volume.claim, **({"readOnly": True} if volume.read_only else {})}
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": claim})
    return [*volumes, *mounts.volumes(placement.pods.mounts, _claims(placement))]


def _claims(placement: Placement) -> dict[str, str]:
    """Claim -> the name of its volume in the pod."""
    return {volume.claim: f"claim-{number}" for number, volume in enumerate(placement.volumes)}


def _secret(job: Job, placement: Placement, values: Mapping[str, str], packed: str) -> Manifest:
    row: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(job, placement), "type": "Opaque"}
    row["stringData"] = dict(values)
    return {**row, "data": {CODE_KEY: packed}} if packed else row


def _service(job: Job, placement: Placement) -> Manifest:
    spec = {
        "clusterIP": "None",
        # Nodes look each other up before they are ready, since they become ready together.
        "publishNotReadyAddresses": True,
        "selector": {RUN_LABEL: job.name},
        "ports": [{"name": "launcher", "port": PORT}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(job, placement), "spec": spec}


def _policy(job: Job, placement: Placement) -> Manifest:
    """Only the run's own pods may connect to its pods: the frameworks' ports have no authentication."""
    same = {"podSelector": {"matchLabels": {RUN_LABEL: job.name}}}
    spec = {**same, "policyTypes": ["Ingress"], "ingress": [{"from": [same]}]}
    metadata = _metadata(job, placement)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _literal(text: str) -> str:
    """Kubernetes fills in `$(NAME)`; a doubled dollar sign is one that it leaves alone."""
    return text.replace("$", "$$")
