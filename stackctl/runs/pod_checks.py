"""Whether a namespace takes the pods that were asked for, and has what they name. Judged before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.errors import InvalidInput, MissingHere, did_you_mean
from stackctl.jobs.pod_options import PodSettings
from stackctl.jobs.profiles import Toleration
from stackctl.runs.feasibility import Node
from stackctl.runs.submission import Submission

Pod = dict[str, Any]

ENFORCE = "pod-security.kubernetes.io/enforce"
"""The label by which a namespace says what its pods may be."""

USERS, GROUPS = "openshift.io/sa.scc.uid-range", "openshift.io/sa.scc.supplemental-groups"
"""The annotations by which OpenShift says as whom its pods may run."""

_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip
_NODES_OWN = {"hostNetwork": "--host-network", "hostPID": "--patch", "hostIPC": "--patch"}


class Answers(Protocol):
    """What the cluster answered; raises what a question raised."""

    def of(self, key: str) -> Any:
        """The answer to a question."""


def asks(cluster: Cluster, submission: Submission) -> dict[str, Callable[[], Any]]:
    """What to ask the cluster: the namespace, and every object that the pods name."""
    namespace = submission.placement.namespace
    asked = {
        _key(kind, name): partial(cluster.get, kind, name, namespace)
        for kind, name, _ in _named(submission.placement.pods)
    }
    return {"Namespace": partial(cluster.get, "Namespace", namespace), **asked}


def judge(submission: Submission, answers: Answers) -> list[str]:
    """What is worth telling.

    Raises:
        MissingHere: Something that the pods name is not there.
        InvalidInput: The namespace does not take such pods.
    """
    placement, said = submission.placement, []
    pod = submission.pod
    with where_allowed():
        said += admitted(answers.of("Namespace") or {}, pod, placement.pods)
    for kind, name, where in _named(placement.pods):
        try:
            found = answers.of(_key(kind, name))
        except ApiError as error:
            if error.status != 403:
                raise
            said.append(f"you may not look at a {_words(kind)}: {name} is not checked")
            continue
        if found is None:
            hint = f"`kubectl get {kind.lower()}s` lists them"
            raise MissingHere(f"the namespace {placement.namespace} has no such {_words(kind)}", where=where, hint=hint)
        modes = set((found.get("spec") or {}).get("accessModes") or []) if kind == "PersistentVolumeClaim" else set()
        if modes and submission.job.nodes > 1 and not modes & {"ReadWriteMany", "ReadOnlyMany"}:
            raise InvalidInput(
                f"can be mounted by one node at a time ({', '.join(sorted(modes))})",
                where=where,
                hint="use a claim with the access mode ReadWriteMany, or a single node",
            )
    return said


def admitted(namespace: Mapping[str, Any], pod: Pod, asked: PodSettings) -> list[str]:
    """Judge a pod by what its namespace says of itself; returns what is worth telling. Pure.

    Raises:
        InvalidInput: It would not be admitted.
    """
    about = namespace.get("metadata") or {}
    level = (about.get("labels") or {}).get(ENFORCE, "privileged")
    problems = [] if level == "privileged" else list(violations(pod, restricted=level == "restricted"))
    if problems:
        what = ", ".join(problems[:3]) + (", …" if len(problems) > 3 else "")
        raise InvalidInput(
            f"the namespace {about.get('name')} takes pods of the level {level} only, and these have: {what}",
            where=f"label {ENFORCE}",
            hint="leave it out, or submit to a namespace whose pods may have it",
        )
    return _users(about, pod, asked)


def _users(about: Mapping[str, Any], pod: Pod, asked: PodSettings) -> list[str]:
    """OpenShift's ranges. Whether an account may use others, only the cluster's administrator can see."""
    notes, security = about.get("annotations") or {}, pod.get("securityContext") or {}
    for annotation, field, noun in ((USERS, "runAsUser", "user"), (GROUPS, "fsGroup", "group")):
        ids = _range(str(notes.get(annotation, "")))
        if ids is None or security.get(field, ids[0]) in range(ids[0], ids[1] + 1):
            continue
        what = (
            f"OpenShift gives the namespace {about.get('name')} the {noun}s {ids[0]} to {ids[1]} ({annotation}), "
            f"and its pods would run as {security[field]}"
        )
        if asked.own_user or asked.service_account:
            return [f"{what}: they start if their account may use another constraint, as nonroot-v2"]
        hint = f"add --run-as {ids[0]}, or --service-account with one that may use another constraint, as nonroot-v2"
        raise InvalidInput(what, where="--run-as", hint=hint)
    return []


def _range(text: str) -> tuple[int, int] | None:
    """`1000680000/10000` and `1000680000-1000689999`: the first and the last; the first of several such."""
    found = re.match(r"(\d+)([/-])(\d+)", text)
    if not found:
        return None
    first, last = int(found[1]), int(found[3])
    return first, first + last - 1 if found[2] == "/" else last


def violations(pod: Pod, *, restricted: bool) -> Iterator[str]:
    """What of a pod its namespace's level does not allow, as the pod security standards have it."""
    yield from (f"{field} ({option})" for field, option in _NODES_OWN.items() if pod.get(field))
    for volume in pod.get("volumes") or []:
        if "hostPath" in volume:
            yield f"a folder of the node, {volume['hostPath'].get('path')} (--mount host:…)"
        elif restricted and not volume.keys() & _RESTRICTED_VOLUMES:
            yield f"the volume {volume['name']}"
    for container in [*(pod.get("initContainers") or []), *pod["containers"]]:
        security = container.get("securityContext") or {}
        yield from (f"{what} in {container['name']} (--patch)" for what in _of_container(pod, security, restricted))
        if not pod.get("hostNetwork") and any("hostPort" in port for port in container.get("ports") or []):
            yield f"a port of the node in {container['name']}"


def _of_container(pod: Pod, security: Mapping[str, Any], restricted: bool) -> Iterator[str]:
    if security.get("privileged"):
        yield "privileged: true"
    capabilities = security.get("capabilities") or {}
    if not restricted:
        return
    if security.get("allowPrivilegeEscalation") is not False:
        yield "no allowPrivilegeEscalation: false"
    if "ALL" not in (capabilities.get("drop") or []) or set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    whole = {**(pod.get("securityContext") or {}), **security}
    if not whole.get("runAsNonRoot") or whole.get("runAsUser") == 0:
        yield "root"
    if (whole.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "no seccompProfile"


def takers(nodes: Sequence[Node], asked: PodSettings) -> list[Node]:
    """The nodes that pods may go to by their names.

    Raises:
        MissingHere: One that was chosen is not there.
    """
    known = {node.metadata.name for node in nodes}
    for option, names in (("--node", asked.nodes), ("--exclude-node", asked.excluded)):
        for name in names:
            if name not in known:
                raise MissingHere(
                    "the cluster has no such node", where=f"{option} {name}", hint=did_you_mean(name, known)
                )
    chosen = set(asked.nodes) or known - set(asked.excluded)
    return [node for node in nodes if node.metadata.name in chosen]


def tolerations(pod: Pod) -> list[Toleration]:
    """Those of a pod, a patch's too."""
    keys = ("key", "operator", "value", "effect")
    rows = [{key: str(row[key]) for key in keys if row.get(key)} for row in pod.get("tolerations") or []]
    return [Toleration(**{"key": "", **row}) for row in rows]


def _named(asked: PodSettings) -> list[tuple[str, str, str]]:
    """Kind, name and option of each object that the pods name."""
    kinds = {"claim": "PersistentVolumeClaim", "configmap": "ConfigMap", "secret": "Secret"}
    account = [("ServiceAccount", asked.service_account, "--service-account")] if asked.service_account else []
    secrets = [("Secret", name, "--image-pull-secret") for name in asked.pull_secrets]
    mounts = [(kinds[row.kind], row.name, f"--mount {row.kind}") for row in asked.mounts if row.kind in kinds]
    return [(kind, name, f"{option} {name}") for kind, name, option in (*account, *secrets, *mounts)]


def _key(kind: str, name: str) -> str:
    return f"{kind} {name}"


def _words(kind: str) -> str:
    return {"PersistentVolumeClaim": "claim", "ServiceAccount": "service account"}.get(kind, kind)
