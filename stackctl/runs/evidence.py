"""What to look for in the cluster's objects when a run is not where it should be: one function a cause. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stackctl.jobs.kubernetes import UNPACK
from stackctl.runs import observe
from stackctl.runs.objects import Event, KubeJob, Pod
from stackrt.contract import CONFIG, STOPPED, Reason


class Facts(NamedTuple):
    """What the cluster says of a run: its Job, every pod of every attempt, and events about both.

    `service` is whether the Service is there that gives the pods their names. `kept` is failure.json of the run's
    claim, read where no pod is left to tell.
    """

    job: KubeJob
    pods: Sequence[Pod]
    events: Sequence[Event] = ()
    service: bool = True
    kept: dict[str, Any] | None = None

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
        failed = [pod for pod in self.pods if pod.status.phase == "Failed"]
        attempt = max((pod.attempt for pod in failed), default=0)
        return [pod for pod in failed if pod.attempt == attempt]

    @property
    def report(self) -> dict[str, Any]:
        """The launchers' report of why the last attempt failed; empty if there is none."""
        return observe.failure(self.last) or self.kept or {}

    def said(self, reason: str, of: str = "") -> list[str]:
        """Messages of events with a reason, about the Job or one pod."""
        name = of or self.job.metadata.name
        kind = "Pod" if of else "Job"
        return [
            row.message
            for row in self.events
            if row.reason == reason and (row.involved_object.kind, row.involved_object.name) == (kind, name)
        ]


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
        if len(facts.newest) >= facts.job.spec.completions:
            return None
        for message in reversed(facts.said("FailedCreate")):
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


_GONE = ("DeletionByPodGC", "DeletionByTaintManager")


def node_lost(facts: Facts) -> Found | None:
    """A node went away, or its pod fell silent."""
    for pod in _recent(facts):
        why = pod.disruption
        if (why and why.reason in _GONE) or pod.status.reason == "NodeLost":
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
        if why and why.reason not in _GONE:
            return Found(f"node {pod.index}, pod {pod.metadata.name} on {_host(pod)}", [why.message or why.reason])
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
    lacking = "; ".join(dict.fromkeys(re.findall(r"\d+ Insufficient [^,. ]+(?:[./][^,. ]+)*", message)))
    which = _nodes(waiting, facts)
    return Found(f"{which}" + (f" ({lacking})" if lacking else ""), [message])


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


def mount(facts: Facts) -> Found | None:
    """A volume cannot be mounted."""
    for pod in facts.stuck:
        message = next(iter(reversed(facts.said("FailedMount", pod.metadata.name))), "")
        claim = re.search(
            r'persistentvolumeclaim "[^"]*" not found|unbound immediate PersistentVolumeClaims', pod.unschedulable
        )
        if claim or message:
            return Found(f"node {pod.index}", [message or pod.unschedulable])
    return None


def unpack(facts: Facts) -> Found | None:
    """The shipped code was not unpacked."""
    for pod in facts.last:
        for row in pod.status.init_container_statuses:
            if row.name == UNPACK and row.state.terminated and row.state.terminated.exit_code:
                return Found(f"node {pod.index}", row.state.terminated.message.splitlines()[-5:])
    return None


def queued(facts: Facts) -> Found | None:
    """The job is suspended."""
    return Found("") if facts.job.spec.suspend else None


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


def running(facts: Facts) -> Found | None:
    """Pods run."""
    return Found(f"attempt {max(pod.attempt for pod in facts.newest)}") if facts.newest else None


def _nodes(pods: Sequence[Pod], facts: Facts) -> str:
    shown = ", ".join(str(pod.index) for pod in pods[:10]) + (", …" if len(pods) > 10 else "")
    return f"{len(pods)} of {facts.job.spec.completions} nodes ({shown})"


def _host(pod: Pod) -> str:
    return pod.spec.node_name or "no node yet"
