"""The fields of Kueue's objects that tell why a run waits, of all versions of its API; the rest is not even decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from stackctl.jobs import quantity
from stackctl.runs.objects import Condition, Metadata

Amount = str | int | float
"""A quantity: the API server gives it back as it was written."""


class Kueue(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Named as in Kueue."""


class Owner(Kueue, frozen=True):
    """What an object belongs to."""

    name: str = ""
    uid: str = ""


class WorkloadMetadata(Kueue, frozen=True):
    """Who a Workload is, since when, and whose: its Job's."""

    name: str = ""
    creation_timestamp: str = ""
    owner_references: list[Owner] = []


class Assignment(Kueue, frozen=True):
    """What a queue has given to a set of pods: a flavor for each resource, and how much of it in all."""

    flavors: dict[str, str] = {}
    resource_usage: dict[str, Amount] = {}


class Admission(Kueue, frozen=True):
    """What a queue has given to a run."""

    cluster_queue: str = ""
    pod_set_assignments: list[Assignment] = []


class WorkloadSpec(Kueue, frozen=True):
    """Of a Workload, what orders it."""

    queue_name: str = ""
    priority: int = 0
    active: bool = True


class WorkloadStatus(Kueue, frozen=True):
    """How a Workload fares in its queue."""

    conditions: list[Condition] = []
    admission: Admission | None = None


class Workload(Kueue, frozen=True):
    """A run as Kueue sees it."""

    metadata: WorkloadMetadata
    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()

    @property
    def run(self) -> str:
        """The name of the Job that it stands for."""
        return next((owner.name for owner in self.metadata.owner_references), self.metadata.name)

    def is_of(self, uid: str) -> bool:
        """Whether it stands for the Job with this uid."""
        return any(owner.uid == uid for owner in self.metadata.owner_references)

    def condition(self, kind: str, status: str = "True") -> Condition | None:
        """A condition in a state, or None."""
        return next((row for row in self.status.conditions if (row.type, row.status) == (kind, status)), None)

    @property
    def waits(self) -> bool:
        """Whether it waits for quota."""
        return self.spec.active and not (self.condition("QuotaReserved") or self.condition("Finished"))

    @property
    def place(self) -> tuple[int, str, str]:
        """Where it stands among those that wait: Kueue takes the highest priority first, of those the oldest."""
        return -self.spec.priority, self.metadata.creation_timestamp, self.metadata.name

    def uses(self) -> Iterator[tuple[str, str, float]]:
        """What it holds: flavor, resource, amount."""
        for row in self.status.admission.pod_set_assignments if self.status.admission else ():
            for resource, amount in row.resource_usage.items():
                yield row.flavors.get(resource, ""), resource, value(amount)


class LocalQueueSpec(Kueue, frozen=True):
    """Which ClusterQueue a LocalQueue belongs to."""

    cluster_queue: str = ""
    stop_policy: str = "None"


class QueueStatus(Kueue, frozen=True):
    """How a queue is."""

    conditions: list[Condition] = []


class LocalQueue(Kueue, frozen=True):
    """A queue of a namespace: what `--queue` names."""

    metadata: Metadata
    spec: LocalQueueSpec = LocalQueueSpec()
    status: QueueStatus = QueueStatus()

    @property
    def closed(self) -> str:
        """Why nothing is admitted from it whatever is free; empty if it is open."""
        return _closed(self.spec.stop_policy, self.status.conditions)


class Quota(Kueue, frozen=True):
    """How much there is of a resource in a flavor; without a limit all that others leave may be borrowed."""

    name: str = ""
    nominal_quota: Amount = 0
    borrowing_limit: Amount | None = None


class Flavor(Kueue, frozen=True):
    """A kind of node, and what there is of it."""

    name: str = ""
    resources: list[Quota] = []


class Group(Kueue, frozen=True):
    """Resources that a pod takes from one flavor, and the flavors that are tried in turn."""

    covered_resources: list[str] = []
    flavors: list[Flavor] = []


class ClusterQueueSpec(Kueue, frozen=True):
    """Of a ClusterQueue, its quota."""

    cohort: str = ""
    cohort_name: str = ""
    stop_policy: str = "None"
    resource_groups: list[Group] = []


class Reserved(Kueue, frozen=True):
    """How much of a resource is given away."""

    name: str = ""
    total: Amount = 0


class FlavorReserved(Kueue, frozen=True):
    """How much of a flavor is given away."""

    name: str = ""
    resources: list[Reserved] = []


class ClusterQueueStatus(Kueue, frozen=True):
    """How a ClusterQueue is, and what it has given away."""

    conditions: list[Condition] = []
    flavors_reservation: list[FlavorReserved] = []


class ClusterQueue(Kueue, frozen=True):
    """What LocalQueues of all namespaces share."""

    metadata: Metadata
    spec: ClusterQueueSpec = ClusterQueueSpec()
    status: ClusterQueueStatus = ClusterQueueStatus()

    @property
    def closed(self) -> str:
        """Why it admits nothing whatever is free; empty if it is open."""
        return _closed(self.spec.stop_policy, self.status.conditions)

    @property
    def alone(self) -> bool:
        """Whether there is nobody that it could borrow from."""
        return not (self.spec.cohort or self.spec.cohort_name)

    def most(self, quota: Quota) -> float:
        """What it could ever give of a resource of a flavor."""
        if self.alone:
            return value(quota.nominal_quota)
        more = math.inf if quota.borrowing_limit is None else value(quota.borrowing_limit)
        return value(quota.nominal_quota) + more

    def reserved(self, flavor: str, resource: str) -> float:
        """What of a resource of a flavor is given away, to runs of all namespaces."""
        rows = (row for found in self.status.flavors_reservation if found.name == flavor for row in found.resources)
        return sum(value(row.total) for row in rows if row.name == resource)


def _closed(policy: str, conditions: Sequence[Condition]) -> str:
    if policy not in ("", "None"):
        return "it is stopped"
    inactive = next((row for row in conditions if row.type == "Active" and row.status == "False"), None)
    return inactive.message or inactive.reason if inactive else ""


def value(amount: Amount) -> float:
    """The number that a quantity stands for."""
    return quantity.value(str(amount))
