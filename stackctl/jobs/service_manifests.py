"""The plan of a service in Kubernetes: a Deployment, and what belongs to it. Pure.

Plain dictionaries, as `kubernetes` makes them for jobs.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from stackctl.jobs import serving
from stackctl.jobs.kubernetes import CONTAINER, HOSTNAME, MANAGED, Manifest, confined, security
from stackctl.jobs.profiles import Profile

SERVICE_LABEL = "stackctl.io/service"
MODEL_NOTE, ENGINE_NOTE, TOKEN_NOTE = "stackctl.io/model", "stackctl.io/engine", "stackctl.io/token"
SELECTOR = f"{SERVICE_LABEL},app.kubernetes.io/managed-by=stackctl"
"""Selects services."""

TOKEN_KEY = "token"  # noqa: S105 - a key
MARGIN = 10
"""Seconds that a pod has beyond what its server takes to end."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A service on a cluster.

    Args:
        model: Path of the model in the container.
        claim: The claim that has it, seen at serving.MODEL; without one it is in a layer of the image.
        served: The model's name in requests.
        most: Servers at most, where their number follows their load; 0 for always as many.
        token: What clients must send; empty for nothing.
        sources: Namespaces whose pods may send requests, beside the service's own.
    """

    name: str
    namespace: str
    engine: str
    image: str
    model: str
    served: str
    claim: str = ""
    more: tuple[str, ...] = ()
    replicas: int = 1
    most: int = 0
    cpu: str = "1"
    memory: str = "2Gi"
    gpus: int = 0
    profile: Profile
    token: str = ""
    sources: tuple[str, ...] = ()
    pull_policy: str = "IfNotPresent"

    @property
    def server(self) -> serving.Server:
        """The program."""
        return serving.server(self.engine)


def manifests(s: Serving) -> list[Manifest]:
    """Every object of a service, the Deployment first: it owns the others."""
    found = [_deployment(s), _service(s), _policy(s), _budget(s)]
    if s.token:
        found.append(_object(s, "v1", "Secret", {"type": "Opaque", "stringData": {TOKEN_KEY: s.token}}))
    return [*found, _scaler(s)] if s.most else found


def owned(manifest: Manifest, uid: str) -> Manifest:
    """The object as a dependent of the Deployment with this uid: it goes when the Deployment goes."""
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": manifest["metadata"]["name"], "uid": uid}
    metadata = {**manifest["metadata"], "ownerReferences": [{**owner, "controller": True}]}
    return {**manifest, "metadata": metadata}


def _object(s: Serving, version: str, kind: str, rest: Manifest, notes: dict[str, str] | None = None) -> Manifest:
    metadata: Manifest = {"name": s.name, "namespace": s.namespace, "labels": {**MANAGED, SERVICE_LABEL: s.name}}
    if notes:
        metadata["annotations"] = notes
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _chosen(s: Serving) -> Manifest:
    return {"matchLabels": {SERVICE_LABEL: s.name}}


def _deployment(s: Serving) -> Manifest:
    scrape = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(s.server.port),
        "prometheus.io/path": "/metrics",
    }
    notes = {**(scrape if s.engine != "tf-serving" else {}), **s.profile.annotations}
    if s.token:  # servers read a changed Secret by themselves; a new pod must not start with the old one
        notes[TOKEN_NOTE] = hashlib.sha256(s.token.encode()).hexdigest()[:16]
    labels = {**MANAGED, SERVICE_LABEL: s.name}
    spec: Manifest = {
        **({} if s.most else {"replicas": s.replicas}),
        "selector": _chosen(s),
        # A new server is ready before an old one is asked to end.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "progressDeadlineSeconds": 600,
        "revisionHistoryLimit": 3,
        "template": {"metadata": {"labels": labels, "annotations": notes}, "spec": _pod(s)},
    }
    about = {MODEL_NOTE: f"{s.served}: {s.claim or 'image'}:{s.model}", ENGINE_NOTE: s.engine}
    return _object(s, "apps/v1", "Deployment", {"spec": spec}, about)


def _pod(s: Serving) -> Manifest:
    drain, profile = serving.DRAIN + serving.GRACE + MARGIN, s.profile
    spec: Manifest = {
        "terminationGracePeriodSeconds": drain,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(),
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": _chosen(s)}
        ],
        "containers": [_container(s)],
        "volumes": _volumes(s),
    }
    if profile.runtime_class:
        spec["runtimeClassName"] = profile.runtime_class
    if profile.selector:
        spec["nodeSelector"] = dict(profile.selector)
    if profile.tolerations:
        spec["tolerations"] = [msgspec.to_builtins(row) for row in profile.tolerations]
    return spec


def _container(s: Serving) -> Manifest:
    server, profile = s.server, s.profile
    words = [*server.words(s.model, s.served), *(("--token-file", serving.TOKEN) if s.token else ()), *s.more]
    points: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    if s.claim:
        points.append({"name": "model", "mountPath": serving.MODEL, "readOnly": True})
    if s.token:
        points.append({"name": "token", "mountPath": serving.TOKEN.rpartition("/")[0], "readOnly": True})
    gpus = {profile.gpu: str(s.gpus)} if s.gpus else {}
    limits = {**gpus, **profile.resources, "memory": s.memory}
    env = {"HOME": "/tmp", **server.env, **profile.env}  # noqa: S108 - its own
    row: Manifest = {
        "name": CONTAINER,
        "image": s.image,
        "imagePullPolicy": s.pull_policy,
        "command": [word.replace("$", "$$") for word in words],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "ports": [{"name": "http", "containerPort": server.port}],
        "resources": {"requests": {**limits, "cpu": s.cpu}, "limits": limits},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {**confined(), "readOnlyRootFilesystem": True},
        "volumeMounts": points,
        # Loading takes as long as it takes; until then the other probes wait.
        "startupProbe": {**_probe(s, server.ready), "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300},
        "readinessProbe": {**_probe(s, server.ready), "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**_probe(s, server.live), "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }
    if s.engine != "stack":  # ours goes on answering for a moment by itself
        row["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(serving.DRAIN)]}}}
    return row


def _probe(s: Serving, path: str) -> Manifest:
    return {"httpGet": {"path": path.format(name=s.served), "port": "http"}}


def _volumes(s: Serving) -> list[Manifest]:
    found: list[Manifest] = [{"name": "tmp", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if s.claim:
        found.append({"name": "model", "persistentVolumeClaim": {"claimName": s.claim, "readOnly": True}})
    if s.token:
        items = [{"key": TOKEN_KEY, "path": serving.TOKEN.rpartition("/")[2]}]
        found.append({"name": "token", "secret": {"secretName": s.name, "items": items, "defaultMode": 0o440}})
    return found


def _service(s: Serving) -> Manifest:
    ports = [{"name": "http", "port": s.server.port, "targetPort": "http"}]
    return _object(s, "v1", "Service", {"spec": {"selector": {SERVICE_LABEL: s.name}, "ports": ports}})


def _policy(s: Serving) -> Manifest:
    """Who may send requests: pods of the namespace, and of those that are named. A server itself asks nobody."""
    names = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [*s.sources]}]}
    clients: list[Manifest] = [{"podSelector": {}}, *([{"namespaceSelector": names}] if s.sources else [])]
    ingress = [{"from": clients, "ports": [{"port": s.server.port, "protocol": "TCP"}]}]
    spec: Manifest = {"podSelector": _chosen(s), "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": []}
    return _object(s, "networking.k8s.io/v1", "NetworkPolicy", {"spec": spec})


def _budget(s: Serving) -> Manifest:
    """A node that is drained takes one server at a time."""
    return _object(s, "policy/v1", "PodDisruptionBudget", {"spec": {"maxUnavailable": 1, "selector": _chosen(s)}})


def _scaler(s: Serving) -> Manifest:
    target: dict[str, Any] = {"type": "Utilization", "averageUtilization": 80}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": s.name},
        "minReplicas": s.replicas,
        "maxReplicas": s.most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    return _object(s, "autoscaling/v2", "HorizontalPodAutoscaler", {"spec": spec})
