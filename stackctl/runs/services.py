"""Services on a cluster: the handle of one, and how they fare."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, where_allowed
from stackctl.errors import InvalidInput, JobFailed
from stackctl.jobs import serving
from stackctl.jobs.kubernetes import MANAGED
from stackctl.jobs.service_manifests import ENGINE_NOTE, MODEL_NOTE, SELECTOR, SERVICE_LABEL
from stackctl.runs import logs, objects, reach, summary
from stackctl.runs.handle import Forwarded, Lines, Outcome, Tell, Told
from stackctl.runs.objects import Camel, Condition, Metadata, Pod
from stackctl.runs.patience import Patience
from stackctl.runs.states import State

KINDS = ("Service", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Secret")
"""What belongs to a service beside its Deployment."""

LOOK_SECONDS = 1.0


class DeploymentSpec(Camel, frozen=True):
    """Of a Deployment, what we set."""

    replicas: int = 1


class DeploymentStatus(Camel, frozen=True):
    """How a Deployment fares."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class About(Metadata, frozen=True):
    """Who a Deployment is, and how often it was changed."""

    generation: int = 0


class Deployment(Camel, frozen=True):
    """A service."""

    metadata: About
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()

    def condition(self, kind: str, status: str) -> Condition | None:
        """A condition that is so, or None."""
        return next((row for row in self.status.conditions if (row.type, row.status) == (kind, status)), None)

    @property
    def stuck(self) -> Condition | None:
        """Why a change does not come to its end."""
        found = self.condition("Progressing", "False")
        return found if found and found.reason == "ProgressDeadlineExceeded" else None

    @property
    def rolled_out(self) -> bool:
        """Whether all its servers are as it says, and no others are there."""
        now, wanted = self.status, self.spec.replicas
        seen = now.observed_generation >= self.metadata.generation
        return seen and now.updated_replicas == now.available_replicas == now.replicas == wanted

    @property
    def state(self) -> State:
        """As a run's."""
        if self.status.available_replicas:
            return "running"
        return "failed" if self.stuck else "pending"


class ScalerSpec(Camel, frozen=True):
    """Of an autoscaler, what we set."""

    min_replicas: int = 1
    max_replicas: int = 1


class ScalerStatus(Camel, frozen=True):
    """How an autoscaler fares."""

    conditions: tuple[Condition, ...] = ()


class Scaler(Camel, frozen=True):
    """What makes the number of a service's servers follow their load."""

    spec: ScalerSpec = ScalerSpec()
    status: ScalerStatus = ScalerStatus()


def scales(scaler: Scaler) -> str:
    """Whether the number of a service's servers follows their load, and why not. Pure."""
    low, high = scaler.spec.min_replicas, scaler.spec.max_replicas
    bad = {"ScalingActive": "False", "AbleToScale": "False"}
    for row in scaler.status.conditions:
        if bad.get(row.type) == row.status:
            said = f"their number does not follow their load ({low} to {high}): {row.message}"
            if "metrics.k8s.io" in row.message or row.reason == "FailedGetResourceMetric":
                said += "\n  it needs the cluster's metrics API: metrics-server, or what stands for it"
            return said
    if not scaler.status.conditions:
        return f"their number is to follow their load ({low} to {high}); no controller has looked at that yet"
    return f"their number follows their load ({low} to {high})"


def find(cluster: Cluster, name: str, namespace: str) -> Deployment | None:
    """A service by its name; None if there is none."""
    with where_allowed():  # who may not see Deployments has no services
        found = cluster.get("Deployment", name, namespace)
        if found is not None and SERVICE_LABEL in (found["metadata"].get("labels") or {}):
            return msgspec.convert(found, Deployment)
    return None


def states(cluster: Cluster, namespace: str) -> dict[str, dict[str, tuple[State, str]]]:
    """Namespace -> its services: name -> state, and when it was made. Without a namespace, of all."""
    found: dict[str, dict[str, tuple[State, str]]] = {}
    with where_allowed():
        for row in cluster.items("Deployment", Deployment, namespace, labelSelector=SELECTOR):
            about = row.metadata
            made = about.creation_timestamp.replace("Z", "+00:00")
            found.setdefault(about.namespace, {})[about.name] = row.state, made
    return found


def why(service: Deployment, pods: Sequence[Pod]) -> str:
    """Why a service is not as it should be; empty if it is. Pure."""
    refused = service.condition("ReplicaFailure", "True")
    if refused:
        return f"the cluster makes no pod: {refused.message}"
    for pod in pods:
        name = pod.metadata.name
        if pod.unschedulable:
            return f"{name} waits for a node: {pod.unschedulable}"
        for row in pod.status.container_statuses:
            ended = row.state.terminated or row.last_state.terminated
            if ended and not row.ready and (ended.exit_code or ended.reason == "OOMKilled"):
                last = [line for line in ended.message.strip().splitlines() if line.strip()][-3:]
                reason = "out of memory: give it more with --memory" if ended.reason == "OOMKilled" else ended.reason
                head = f"{name} ended with exit code {ended.exit_code} ({reason}), {row.restart_count} restarts"
                return "\n".join([head, *(f"  | {line}" for line in last)])
        if pod.problem:
            return f"{name} does not start: {pod.problem.reason}: {pod.problem.message}"
    if service.stuck:
        return service.stuck.message
    return "" if service.rolled_out else "its servers load their model, or wait for their image"


class ServiceRun:
    """A service that its cluster has; the handle of it."""

    def __init__(self, cluster: Cluster, service: Deployment, tell: Tell) -> None:
        self._cluster, self._service, self._tell = cluster, service, tell
        self._namespace = service.metadata.namespace

    @property
    def name(self) -> str:
        """The service's name."""
        return self._service.metadata.name

    def status(self) -> Told:
        """Its state, and each server's."""
        now, pods = self._look(), self._pods()
        notes, size = now.metadata.annotations, f"{now.status.available_replicas} of {now.spec.replicas} servers ready"
        head = f"{self.name}: {now.state}, {size} (service, namespace {self._namespace})"
        lines = [head, f"  model        {notes.get(MODEL_NOTE, '-')}"]
        if not now.rolled_out:
            lines.append(f"  `stackctl explain {self.name}` says why")
        rows = [
            (str(number), _state(pod), pod.spec.node_name or "-", pod.metadata.name) for number, pod in enumerate(pods)
        ]
        lines.append(summary.table([("NODE", "STATE", "HOST", "POD"), *rows]))
        data = {
            "name": self.name, "namespace": self._namespace, "kind": "service", "state": now.state,
            "engine": notes.get(ENGINE_NOTE, ""), "model": notes.get(MODEL_NOTE, ""), "wanted": now.spec.replicas,
            "ready": now.status.available_replicas, "rolled_out": now.rolled_out,
            "pods": [{"pod": pod, "state": state, "host": host} for _, state, host, pod in rows],
        }  # fmt: skip
        return Told("\n".join(lines), data)

    def explain(self) -> Told:
        """Why it is not as it should be, by its cluster's own words."""
        now, pods = self._look(), self._pods()
        said = why(now, pods) or f"all {now.spec.replicas} servers are ready"
        with where_allowed():
            scaler = self._cluster.get("HorizontalPodAutoscaler", self.name, self._namespace)
            if scaler is not None:
                said += "\n" + scales(msgspec.convert(scaler, Scaler))
        told = {"run": self.name, "state": now.state, "kind": "service", "cause": said, "rolled_out": now.rolled_out}
        return Told(f"{self.name}: {now.state}\n{said}", told)

    def logs(self, chosen: Lines, *, follow: bool = False) -> Iterator[bytes]:
        """What its servers print, each line behind the number that `status` shows."""
        pods = [(number, pod) for number, pod in enumerate(self._pods()) if chosen.node in (None, number)]
        if not pods:
            raise InvalidInput(
                "has no such server now", where=self.name, hint=f"`stackctl status {self.name}` lists them"
            )
        if not follow:
            for number, pod in pods:
                for line in logs.read(self._cluster, self._namespace, pod.metadata.name):
                    yield f"[{number}] ".encode() + line
            return
        lines: queue.Queue[bytes | None] = queue.Queue()
        for number, pod in pods:
            threading.Thread(target=self._follow, args=(number, pod.metadata.name, lines), daemon=True).start()
        left = len(pods)
        while left:
            printed = lines.get()
            if printed is None:
                left -= 1
            else:
                yield printed

    def _follow(self, number: int, pod: str, into: queue.Queue[bytes | None]) -> None:
        try:
            for line in logs.read(self._cluster, self._namespace, pod, follow=True, ended=lambda: self._ended(pod)):
                into.put(f"[{number}] ".encode() + line)
        except ApiError as error:
            into.put(f"[{number}] {error.message}".encode())
        finally:
            into.put(None)

    def _ended(self, pod: str) -> bool:
        return not any(row.metadata.name == pod and row.state.running for row in self._pods())

    def wait(self, put: Callable[[bytes], None] | None = None, seconds: float | None = None) -> Outcome:
        """Wait until all its servers are as was asked for last."""
        said, patience = "", Patience(self.name, seconds)
        while True:
            now = self._look()
            if now.rolled_out:
                return Outcome("succeeded", f"{self.name}: all {now.spec.replicas} servers are ready")
            text = why(now, self._pods())
            if now.stuck:
                return Outcome(
                    "failed", f"{self.name}: {text}", f"the servers that were there go on; {_again(self.name)}"
                )
            if text != said:
                self._tell(f"{self.name}: {text}")
                said = text
            patience.sleep(LOOK_SECONDS)

    def cancel(self) -> str:
        """Remove it with all that belongs to it."""
        name, about = self.name, self._service.metadata
        self._cluster.delete("Deployment", name, self._namespace, uid=about.uid)
        for kind in KINDS:  # what kubectl applied from a dry run has no owner
            with where_allowed():
                there = self._cluster.get(kind, name, self._namespace)
                if there is not None and is_ours(there, name) and not there["metadata"].get("ownerReferences"):
                    self._cluster.delete(kind, name, self._namespace, uid=there["metadata"]["uid"])
        return f"{name}: cancelled"

    def execute(self, rank: int, command: Sequence[str] = (), *, tty: bool = False) -> int:
        """A service has no ranks."""
        raise InvalidInput(
            "is a service: it has no ranks", where=self.name, hint=f"kubectl exec deploy/{self.name} -- …"
        )

    def forward(self, rank: int, port: int, *, local: int | None = None) -> AbstractContextManager[Forwarded]:
        """Within the block, a port of a server can be reached on this machine."""
        ready = [pod for pod in self._pods() if _state(pod) == "ready"]
        if not ready:
            hint = f"`stackctl explain {self.name}` says why"
            raise InvalidInput("none of its servers is ready", where=self.name, hint=hint)
        inside = reach.Pod(self._cluster, self._namespace, ready[0].metadata.name)
        job = serving.job(self.name, serving.MODEL, self.name, host="", port=port)
        where = reach.Port(self.name, rank, port, local)
        return reach.forwarded(where, inside, job, lambda: self._look().state == "running", self._tell)

    def _look(self) -> Deployment:
        found = find(self._cluster, self.name, self._namespace)
        if found is None:
            raise JobFailed(f"{self.name} was removed meanwhile")
        self._service = found
        return found

    def _pods(self) -> list[Pod]:
        chosen = f"{SERVICE_LABEL}={self.name}"
        found = self._cluster.items("Pod", objects.Pod, self._namespace, labelSelector=chosen)
        return sorted(found, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))


def is_ours(there: dict[str, Any], name: str) -> bool:
    """Whether an object is a service's of this name."""
    return {**MANAGED, SERVICE_LABEL: name}.items() <= (there["metadata"].get("labels") or {}).items()


def _state(pod: Pod) -> str:
    if pod.metadata.deletion_timestamp:
        return "ending"
    if any(row.ready for row in pod.status.container_statuses):
        return "ready"
    return "starting" if pod.state.running else pod.status.phase.lower()


def _again(name: str) -> str:
    return f"correct it and serve it again under the name {name}, or `stackctl cancel {name}`"
