"""The fields of Kubernetes' objects that tell how a run fares; everything else is not even decoded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from stackctl.jobs.kubernetes import CONTAINER, DISRUPTIONS_NOTE, FAILURES_NOTE, INDEX_NOTE
from stackrt.contract import PACKED

OVERDUE = timedelta(seconds=5)
"""How much longer than its grace time a pod may take to end."""

HELD = timedelta(seconds=30)
"""How long after the launcher the other containers of a pod may take to end: what Kubernetes gives one that it ends."""


MOST_REPORT = 1 << 20
"""Bytes that a pod's last message may have: a few kilobytes can be unpacked to more than memory holds."""


def _unpacked(text: str) -> bytes:
    """What a last message that was packed says.

    Raises:
        ValueError: It was not.
    """
    import base64
    import zlib

    try:
        return zlib.decompressobj().decompress(base64.b85decode(text), MOST_REPORT)
    except zlib.error as error:
        raise ValueError(str(error)) from None


class Camel(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Named as in Kubernetes."""


class Metadata(Camel, frozen=True):
    """Who an object is. Times are UTC, ISO 8601."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Condition(Camel, frozen=True):
    """One of an object's conditions."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class JobSpec(Camel, frozen=True):
    """Of a Job, what we set."""

    completions: int = 1
    suspend: bool = False
    backoff_limit_per_index: int = 0
    template: dict[str, Any] = {}


class JobStatus(Camel, frozen=True):
    """How a Job fares."""

    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    completion_time: str = ""
    conditions: list[Condition] = []


class KubeJob(Camel, frozen=True):
    """A run's Job.

    `namespace_ends` is whether its namespace is being deleted, which a Job does not tell: it is asked beside it. Where
    a manager's object stands for the run, `metadata` is that object's and `made` the Job's; `unmade` is the object's
    kind if there is no Job of it.
    """

    metadata: Metadata
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()
    namespace_ends: bool = False
    made: Metadata | None = None
    unmade: str = ""

    @property
    def own(self) -> Metadata:
        """Who the Job itself is, which makes the pods."""
        return self.made or self.metadata

    def condition(self, kind: str) -> Condition | None:
        """A condition that holds, or None."""
        return next((row for row in self.status.conditions if row.type == kind and row.status == "True"), None)

    @property
    def failing(self) -> Condition | None:
        """Why it has failed, or will have once its last pods have ended."""
        return self.condition("Failed") or self.condition("FailureTarget")


class Waiting(Camel, frozen=True):
    """Why a container has not started."""

    reason: str = ""
    message: str = ""


class Running(Camel, frozen=True):
    """Since when a container runs."""


class Terminated(Camel, frozen=True):
    """How a container ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    finished_at: str | None = None


class ContainerState(Camel, frozen=True):
    """What a container does: one of the three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Camel, frozen=True):
    """How a container fares."""

    name: str
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState = ContainerState()
    last_state: ContainerState = ContainerState()


class SchedulingGroup(Camel, frozen=True):
    """The pods that are placed with a pod, all at once."""

    pod_group_name: str = ""


class PodSpec(Camel, frozen=True):
    """Where a pod runs, and with which others it is placed."""

    node_name: str = ""
    scheduling_group: SchedulingGroup = SchedulingGroup()


class PodStatus(Camel, frozen=True):
    """How a pod fares."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    container_statuses: list[ContainerStatus] = []
    init_container_statuses: list[ContainerStatus] = []


class Pod(Camel, frozen=True):
    """A pod of a run."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def index(self) -> int:
        """Which node of the job it is."""
        return int(self.metadata.annotations.get(INDEX_NOTE) or 0)

    @property
    def failures(self) -> int:
        """How many failures of its node were counted before it was made."""
        return int(self.metadata.annotations.get(FAILURES_NOTE) or 0)

    @property
    def own_attempt(self) -> int:
        """Which attempt it was made for, as the Job controller counts; the nodes of an attempt agree on the highest."""
        return 1 + self.failures + int(self.metadata.annotations.get(DISRUPTIONS_NOTE) or 0)

    @property
    def report(self) -> dict[str, Any]:
        """What the launcher left as its last message: failure.json, or result.json of a success; or nothing."""
        ended = self.state.terminated
        if ended is None or not ended.message.startswith("{"):
            return {}
        try:
            found = msgspec.json.decode(ended.message)
            if isinstance(found, dict) and isinstance(found.get(PACKED), str):
                found = msgspec.json.decode(_unpacked(found[PACKED]))
        except ValueError:  # msgspec's errors, too
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def failure(self) -> dict[str, Any]:
        """The launcher's report of why the job failed, if this pod has one."""
        return self.report if "sentence" in self.report else {}

    @property
    def attempt(self) -> int:
        """Which attempt it took part in, as far as is known."""
        return int(self.failure.get("attempt") or self.own_attempt)

    @property
    def state(self) -> ContainerState:
        """The state of the container that runs the launcher."""
        return next((row.state for row in self.status.container_statuses if row.name == CONTAINER), ContainerState())

    @property
    def has_failed(self) -> bool:
        """Whether it has, or its launcher: what else is in the pod may keep it."""
        ended = self.state.terminated
        return self.status.phase == "Failed" or (ended is not None and ended.exit_code != 0)

    @property
    def is_up(self) -> bool:
        """Whether its launcher runs and nobody ends it, or has succeeded."""
        ended = self.state.terminated
        if self.status.phase == "Failed" or self.disruption:
            return False
        running = self.state.running is not None and self.metadata.deletion_timestamp is None
        return running or (ended is not None and ended.exit_code == 0)

    @property
    def others(self) -> list[ContainerStatus]:
        """Containers that something in the cluster has added: each must end by itself, or the pod does not."""
        return [row for row in self.status.container_statuses if row.name != CONTAINER]

    @property
    def held(self) -> bool:
        """Whether its launcher has ended, and another container keeps the pod."""
        ended, about = self.state.terminated, self.metadata
        if not (ended and ended.finished_at) or self.status.phase != "Running" or about.deletion_timestamp:
            return False
        return any(row.state.running for row in self.others) and _long_since(ended.finished_at, HELD)

    @property
    def disruption(self) -> Condition | None:
        """Why the cluster ended this pod for reasons of its own, if it did."""
        rows = self.status.conditions
        return next((row for row in rows if row.type == "DisruptionTarget" and row.status == "True"), None)

    @property
    def overdue(self) -> bool:
        """Whether it should have ended by now and has not: its node is not there to end it."""
        stamp = self.metadata.deletion_timestamp
        if stamp is None or self.status.phase in ("Failed", "Succeeded"):
            return False
        return _long_since(stamp, OVERDUE)

    @property
    def problem(self) -> Waiting | None:
        """Why its containers cannot start, if they cannot."""
        for row in [*self.status.init_container_statuses, *self.status.container_statuses]:
            if row.state.waiting and row.state.waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
                return row.state.waiting
        return None

    @property
    def unschedulable(self) -> str:
        """Why no node takes it; empty if one does."""
        for row in self.status.conditions:
            if row.type == "PodScheduled" and row.status == "False" and self.status.phase == "Pending":
                return row.message or row.reason
        return ""


def _long_since(stamp: str, most: timedelta) -> bool:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")) + most < datetime.now(UTC)


class ClaimStatus(Camel, frozen=True):
    """How a claim fares."""

    phase: str = ""


class ClaimSpec(Camel, frozen=True):
    """What a claim asks for."""

    storage_class_name: str = ""


class Claim(Camel, frozen=True):
    """A claim of a volume."""

    metadata: Metadata
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class EventSource(Camel, frozen=True):
    """Which object an event is about."""

    kind: str = ""
    name: str = ""
    uid: str = ""


class Event(Camel, frozen=True):
    """Something that happened to an object."""

    involved_object: EventSource = EventSource()
    reason: str = ""
    message: str = ""
    type: str = ""
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def time(self) -> str:
        """When it happened last: UTC, ISO 8601, to the second; empty if it does not say."""
        return (self.last_timestamp or self.event_time or "")[:19]
