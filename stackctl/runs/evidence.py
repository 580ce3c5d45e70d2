"""What to look for in the cluster's objects when a run is not where it should be: one function a cause. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stackctl.jobs.kubernetes import UNPACK
from stackctl.runs import holders, observe, queues
from stackctl.runs.objects import Claim, Event, KubeJob, Pod
from stackrt.contract import CONFIG, STOPPED, Reason


class Facts(NamedTuple):
    """What the cluster says of a run: its Job, every pod of every attempt, and events about both.

    `service` is whether the Service is there that gives the pods their names. `kept` is failure.json of the run's
    claim, read where no pod is left to tell. `claims` are those that have no volume yet, where pods wait. `queue` is
    what may be seen of the queue that it waits in, `placed` the pods that hold what it may wait for. `group` is what
    the scheduler says of pods that it places all at once or not at all.
    """

    job: KubeJob
    pods: Sequence[Pod]
    events: Sequence[Event] = ()
    service: bool = True
    kept: dict[str, Any] | None = None
    claims: Sequence[Claim] = ()
    queue: queues.Picture | None = None
    placed: Sequence[holders.Placed] = ()
    group: str = ""

    @property
    def newest(self) -> list[Pod]:
        """The pod that stands for each node now."""
        return observe.newest_pods(self.pods)

    @property
    def stuck(self) -> list[Pod]:
        """Pods that have not started."""
        return [pod for pod in self.newest if pod.status.phase == "Pending"]

    @property
    def last(self) -> list[Pod]:
        """The pods of the newest attempt that has failed: of the last one, or of the one before a restart."""
        failed = [pod for pod in self.pods if pod.has_failed]
        attempt = max((pod.attempt for pod in failed), default=0)
        return [pod for pod in failed if pod.attempt == attempt]

    @property
    def report(self) -> dict[str, Any]:
        """The launchers' report of why the last attempt failed; empty if there is none."""
        return observe.failure(self.last) or self.kept or {}

    @property
    def recovered(self) -> bool:
        """Whether every node is up, so that what ended an earlier attempt is past."""
        return len(self.newest) >= self.job.spec.completions and all(pod.is_up for pod in self.newest)

    def said(self, reason: str, of: str = "", kind: str = "Pod") -> list[str]:
        """Messages of events with a reason, about the Job or what else is named."""
        name, kind = (of, kind) if of else (self.job.own.name, "Job")
        return [row.message for row in self._about(kind, name) if row.reason == reason]

    def refusals(self) -> list[str]:
        """What the Job controller was told, the last one at the end, when it could not make pods that it owes now."""
        owed = [pod for pod in self.newest if pod.has_failed]
        if len(self.newest) - len(owed) >= self.job.spec.completions:
            return []
        # Until an earlier pod has ended nobody misses it: what was refused before that has come right since.
        since = min((_end(pod) for pod in owed), default="") if len(self.newest) >= self.job.spec.completions else ""
        rows = [row for row in self._about("Job", self.job.own.name) if row.reason == "FailedCreate"]
        return [row.message for row in rows if not row.time or row.time >= since]

    def _about(self, kind: str, name: str) -> list[Event]:
        return [row for row in self.events if (row.involved_object.kind, row.involved_object.name) == (kind, name)]


def _end(pod: Pod) -> str:
    """When a pod's launcher ended, to the second; empty if that is not known."""
    ended = pod.state.terminated
    return (ended.finished_at or "")[:19] if ended else ""


class Found(NamedTuple):
    """A cause that applies: what to fill into its sentence, and the evidence."""

    what: str
    evidence: Sequence[str] = ()


def succeeded(facts: Facts) -> Found | None:
    """The job is complete."""
    return Found("") if facts.job.condition("Complete") else None


def deadline(facts: Facts) -> Found | None:
    """The Job controller ended it when its time was over."""
    why = facts.job.failing
    return Found(why.message) if why and why.reason == "DeadlineExceeded" else None


def not_created(*patterns: str) -> Callable[[Facts], Found | None]:
    """The Job controller could not create pods, and was told a reason that matches."""

    def look(facts: Facts) -> Found | None:
        for message in reversed(facts.refusals()):
            if any(re.search(pattern, message) for pattern in patterns):
                return Found(re.sub(r'^Error creating: (pods ".*?" is forbidden: )?', "", message), [message])
        return None

    return look


def config(facts: Facts) -> Found | None:
    """A launcher ended with the code of a configuration that cannot work."""
    for pod in facts.last:
        ended = pod.state.terminated
        if ended and ended.exit_code == CONFIG:
            return Found(str(pod.failure.get("sentence") or f"node {pod.index} ended with exit code {CONFIG}"))
    return Found(str(facts.report["sentence"])) if facts.report.get("reason") == Reason.CONFIG else None


def out_of_memory(facts: Facts) -> Found | None:
    """The kernel killed for want of memory."""
    for pod in facts.last:
        ended = pod.state.terminated
        if ended and ended.reason == "OOMKilled":
            report = observe.failure([pod]) or {}
            rank = f" (rank {report['rank']})" if report.get("rank") is not None else ""
            return Found(
                f"node {pod.index}{rank}, pod {pod.metadata.name} on {_host(pod)}", report.get("last_lines") or ()
            )
    return None


def evicted(facts: Facts) -> Found | None:
    """The kubelet put a pod out of its node."""
    for pod in facts.last:
        if pod.status.reason == "Evicted":
            return Found(f"node {pod.index}, pod {pod.metadata.name} on {_host(pod)}", [pod.status.message])
    return None


def node_lost(facts: Facts) -> Found | None:
    """A node went away, or its pod fell silent."""
    for pod in _recent(facts):
        why = pod.disruption
        if (why and why.reason in observe.NODE_GONE) or pod.status.reason == "NodeLost":
            evidence = [why.message] if why and why.message else []
            return Found(f"node {pod.index} of the job ran on {_host(pod)}", evidence)
    report = facts.report
    if report.get("reason") != Reason.NODE_LOST:
        return None
    hosts = {pod.spec.node_name for pod in facts.pods if pod.index == report.get("node") and pod.spec.node_name}
    where = f"; it ran on {', '.join(sorted(hosts))}" if hosts else ""
    return Found(f"{report['sentence']}{where}")


def disrupted(facts: Facts) -> Found | None:
    """The cluster ended a pod for reasons of its own; it may be gone, its peers told to stop by its launcher."""
    for pod in _recent(facts):
        why = pod.disruption
        if why and why.reason not in observe.NODE_GONE:
            return Found(f"node {pod.index}, pod {pod.metadata.name} on {_host(pod)}", [why.message or why.reason])
    if facts.report and facts.job.failing:
        return None  # with the first failure of a job the cluster ends the pods that are left
    for pod in facts.last:
        if pod.state.terminated and pod.state.terminated.exit_code == STOPPED and not pod.failure:
            return Found(f"node {pod.index} was told to stop with the others, as SIGTERM to any launcher does")
    return None


def _recent(facts: Facts) -> list[Pod]:
    """Pods of the last failed attempt, and those that are ending now."""
    return [*facts.last, *(pod for pod in facts.newest if pod.disruption)]


def rank_failed(facts: Facts) -> Found | None:
    """A launcher names the rank that failed first."""
    report = facts.report
    if report.get("reason") != Reason.RANK_FAILED:
        return None
    return Found(str(report["sentence"]), [str(line) for line in report.get("last_lines") or ()][-15:])


def service_gone(facts: Facts) -> Found | None:
    """Nodes cannot find each other, since their Service is not there."""
    return None if facts.service else Found("")


def peers_missing(facts: Facts) -> Found | None:
    """Launchers waited for others in vain."""
    report = facts.report
    return Found(str(report["sentence"])) if report.get("reason") == Reason.PEERS_MISSING else None


def unschedulable(facts: Facts) -> Found | None:
    """No node takes a pod."""
    waiting = [pod for pod in facts.stuck if pod.unschedulable]
    if not waiting:
        return None
    message = waiting[0].unschedulable
    lacking = list(dict.fromkeys(re.findall(r"\d+ Insufficient [^,. ]+(?:[./][^,. ]+)*", message)))
    resources = [text.split()[-1] for text in lacking]
    about = facts.job.metadata
    held = holders.told(facts.placed, about.name, about.namespace, resources)
    said = _nodes(waiting, facts) + (f" ({'; '.join(lacking)})" if lacking else "") + (f"; {held}" if held else "")
    return Found(said, [message])


def pull(*patterns: str) -> Callable[[Facts], Found | None]:
    """An image cannot be pulled, for a reason that matches."""

    def look(facts: Facts) -> Found | None:
        for pod in facts.stuck:
            why = pod.problem
            if why and why.reason in observe.PULL_REASONS:
                message = " ".join([*facts.said("Failed", pod.metadata.name), why.message or why.reason])
                if any(re.search(pattern, message, re.IGNORECASE) for pattern in patterns):
                    return Found(f"node {pod.index} on {_host(pod)}", [why.message or why.reason])
        return None

    return look


def pulling(facts: Facts) -> Found | None:
    """An image is on its way."""
    for pod in facts.stuck:
        started = facts.said("Pulling", pod.metadata.name)
        if started and not facts.said("Pulled", pod.metadata.name) and not pod.problem:
            return Found(f"node {pod.index} on {_host(pod)}", started[-1:])
    return None


def not_started(*patterns: str) -> Callable[[Facts], Found | None]:
    """A container cannot be made, for a reason that matches."""

    def look(facts: Facts) -> Found | None:
        for pod in facts.stuck:
            if pod.problem and pod.problem.reason not in observe.PULL_REASONS:
                message = f"{pod.problem.reason}: {pod.problem.message}"
                if any(re.search(pattern, message) for pattern in patterns):
                    return Found(f"node {pod.index} on {_host(pod)}", [message])
        return None

    return look


def not_run(*patterns: str) -> Callable[[Facts], Found | None]:
    """A container was made and its program could not be started, for a reason that matches."""

    def look(facts: Facts) -> Found | None:
        for pod in facts.last:
            ended = pod.state.terminated
            if ended and ended.reason in ("ContainerCannotRun", "StartError"):
                message = f"{ended.reason}: {ended.message}"
                if any(re.search(pattern, message) for pattern in patterns):
                    return Found(f"node {pod.index} on {_host(pod)}", [message])
        return None

    return look


_NO_VOLUME = re.compile(
    r'persistentvolumeclaim "[^"]*" not found|unbound immediate PersistentVolumeClaims|binding volumes'
    r"|^(?!.*Insufficient ).*(find available persistent volumes|volume node affinity conflict)"
)
"""A claim, and not want of room, keeps a pod from its node; of a message that names both, room is the cause."""


def mount(facts: Facts) -> Found | None:
    """A volume cannot be mounted."""
    for pod in facts.stuck:
        # A pod's image is asked for once its volumes are mounted: what failed before that is past.
        mounted = facts.said("Pulling", pod.metadata.name) or facts.said("Pulled", pod.metadata.name)
        message = next(iter(reversed(facts.said("FailedMount", pod.metadata.name))), "") if not mounted else ""
        if _NO_VOLUME.search(pod.unschedulable) or message:
            return Found(f"node {pod.index}", [message or pod.unschedulable])
    return None


def unpack(facts: Facts) -> Found | None:
    """The shipped code was not unpacked."""
    for pod in facts.last:
        for row in pod.status.init_container_statuses:
            if row.name == UNPACK and row.state.terminated and row.state.terminated.exit_code:
                return Found(f"node {pod.index}", row.state.terminated.message.splitlines()[-5:])
    return None


def unprovided(facts: Facts) -> Found | None:
    """A claim has no volume: it waits for its first pod, and whoever should make one has not."""
    for claim in facts.claims if facts.stuck else ():
        name, kind = claim.metadata.name, "PersistentVolumeClaim"
        said = [*facts.said("ProvisioningFailed", name, kind), *facts.said("ExternalProvisioning", name, kind)]
        kept_by = f" (storage class {claim.spec.storage_class_name})" if claim.spec.storage_class_name else ""
        return Found(f"{name}{kept_by}", said[:1] or facts.said("WaitForFirstConsumer", name, kind)[:1])
    return None


def namespace_ends(facts: Facts) -> Found | None:
    """The run's namespace is being deleted."""
    return Found(facts.job.metadata.namespace) if facts.job.namespace_ends else None


def held(facts: Facts) -> Found | None:
    """Containers that are not ours keep pods whose launcher has ended."""
    pods = [pod for pod in facts.newest if pod.held]
    names = ", ".join(observe.kept_by(pods))
    images = dict.fromkeys(f"{row.name}: {row.image}" for pod in pods for row in pod.others if row.state.running)
    return Found(f"the container {names} on {_nodes(pods, facts)}", list(images)) if pods else None


def other_failed(facts: Facts) -> Found | None:
    """A container that is not ours failed, so Kubernetes takes the pod for failed, whatever the launcher did."""
    for pod in facts.last:
        launcher = pod.state.terminated
        before = [row for row in pod.status.init_container_statuses if row.name != UNPACK]
        for row in [*before, *pod.others] if launcher is None or launcher.exit_code == 0 else ():
            if row.state.terminated and row.state.terminated.exit_code:
                said = row.state.terminated.message.splitlines()[-5:]
                return Found(f"{row.name} of node {pod.index} with exit code {row.state.terminated.exit_code}", said)
    return None


def queued(facts: Facts) -> Found | None:
    """The job is suspended."""
    if not facts.job.spec.suspend:
        return None
    told, evidence = queues.standing(facts.queue, facts.job.metadata.uid) if facts.queue else ("", [])
    return Found(f": {told}" if told else "", evidence)


def unmade(facts: Facts) -> Found | None:
    """Its manager has not made the Job of a run that is in no queue."""
    kind = facts.job.unmade
    if not kind or facts.job.failing:
        return None
    said = [
        row.message
        for row in facts.events
        if row.involved_object.kind == kind and row.involved_object.name == facts.job.metadata.name
        if row.type == "Warning"
    ]
    return Found(kind, list(dict.fromkeys(said))[-3:])


def ended(facts: Facts) -> Found | None:
    """A pod ended without a report."""
    for pod in facts.last:
        ended = pod.state.terminated
        if ended:
            return Found(f"node {pod.index} with exit code {ended.exit_code}", ended.message.splitlines()[-15:])
    return None


def failed(facts: Facts) -> Found | None:
    """The Job has failed; its own words."""
    why = facts.job.failing
    return Found(why.message or why.reason) if why else None


def starting(facts: Facts) -> Found | None:
    """Pods have not started yet."""
    missing = facts.job.spec.completions - len(facts.newest)
    waiting = [pod for pod in facts.newest if not pod.state.running]
    if missing > 0:
        return Found(f"{missing} of its pods are not there yet")
    return Found(_nodes(waiting, facts)) if waiting else None


def up(facts: Facts) -> Found | None:
    """Every node runs, and nothing is known to keep them apart."""
    return running(facts) if facts.recovered and facts.service and not facts.job.failing else None


def running(facts: Facts) -> Found | None:
    """Pods run."""
    if not facts.newest:
        return None
    others = ", ".join(dict.fromkeys(row.name for pod in facts.newest for row in pod.others))
    beside = f"; beside each launcher runs what the cluster has added, which must end by itself: {others}"
    return Found(f"attempt {max(pod.attempt for pod in facts.newest)}{beside if others else ''}")


def _nodes(pods: Sequence[Pod], facts: Facts) -> str:
    shown = ", ".join(str(pod.index) for pod in pods[:10]) + (", …" if len(pods) > 10 else "")
    return f"{len(pods)} of {facts.job.spec.completions} nodes ({shown})"


def _host(pod: Pod) -> str:
    return pod.spec.node_name or "no node yet"
