"""Look at runs on a cluster: find one, wait for its end, follow its logs, cancel it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from stackctl.engines.kube import ApiError, Cluster, Silent
from stackctl.errors import JobFailed
from stackctl.jobs.job import Job
from stackctl.jobs.kubernetes import RUN_LABEL, SELECTOR
from stackctl.runs import holders, logs, node_failures, objects, observe, queue_reader
from stackctl.runs.evidence import Facts
from stackctl.runs.handle import NoSuchRun
from stackctl.runs.node_failures import NodeFailure
from stackctl.runs.observe import View
from stackctl.runs.states import ENDED

LOOK_SECONDS, LONGEST_LOOK = 1.0, 5.0
"""Between two looks at a run, growing while nothing changes."""

MOST_STREAMS = 32
"""Nodes whose logs are followed at once: the first ones, if more are asked for."""

_WAITING_LINES = 10_000


class Run(msgspec.Struct, frozen=True):
    """A run on a cluster: where, its Job as found, and the job that it was made from."""

    cluster: Cluster
    name: str
    namespace: str
    job: Job
    uid: str


def find(cluster: Cluster, name: str, namespace: str) -> Run:
    """A run by its name.

    Raises:
        NoSuchRun: There is none, or something else made the Job.
    """
    found = _job(cluster, name, namespace)
    return Run(cluster, name, namespace, observe.job_of(found), found.metadata.uid)


def look(run: Run) -> tuple[objects.KubeJob, list[objects.Pod]]:
    """The Job and its pods, of all attempts, now; two requests whatever the size.

    Raises:
        JobFailed: It was removed meanwhile.
    """
    found = run.cluster.get("Job", run.name, run.namespace)
    if found is None or found["metadata"]["uid"] != run.uid:
        raise JobFailed(f"{run.name} was removed meanwhile")
    return msgspec.convert(found, objects.KubeJob), _pods(run)


def view(run: Run) -> View:
    """How the run fares now."""
    return observe.view(*look(run))


def facts(run: Run) -> Facts:
    """All that explains a run: its objects, and events about it and its first pods that wait."""
    found, pods = look(run)
    without = Facts(found, pods)
    names = [run.name, *(pod.metadata.name for pod in without.stuck[:2])]
    events: list[objects.Event] = []
    for name in names:
        selector = f"involvedObject.name={name}"
        events += run.cluster.items("Event", objects.Event, run.namespace, fieldSelector=selector)
    service = run.cluster.get("Service", run.name, run.namespace) is not None
    placed = _placed(run) if any(pod.unschedulable for pod in without.stuck) else ()
    return Facts(found, pods, events, service, queue=queue_reader.look(run.cluster, found), placed=placed)


def failed_nodes(cluster: Cluster, namespace: str) -> list[NodeFailure]:
    """Where runs of a namespace have failed first in the last day; one request."""
    failed = "status.phase=Failed"
    pods = cluster.items("Pod", objects.Pod, namespace, labelSelector=SELECTOR, fieldSelector=failed)
    return node_failures.failures(pods, datetime.now(UTC))


def _placed(run: Run) -> list[holders.Placed]:
    """The pods that hold what a pod of the run waits for: of the cluster, or of as much of it as may be seen."""
    try:
        return run.cluster.items("Pod", holders.Placed, fieldSelector=holders.PLACED, resourceVersion="0")
    except ApiError as error:
        if error.status != 403:
            raise
    return run.cluster.items("Pod", holders.Placed, run.namespace, fieldSelector=holders.PLACED)


def wait(run: Run, seen: Callable[[View], None]) -> View:
    """Wait for the end of a run; `seen` is called at each look.

    Raises:
        JobFailed: It was removed meanwhile.
    """
    before, pause = "", LOOK_SECONDS
    while True:
        now = view(run)
        seen(now)
        if now.state in ENDED:
            return now
        if observe.line(now) != before:
            before, pause = observe.line(now), LOOK_SECONDS
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_LOOK)


def cancel(run: Run) -> None:
    """Remove a run with its pods and everything that belongs to it."""
    run.cluster.delete("Job", run.name, run.namespace, uid=run.uid)


class Line(msgspec.Struct, frozen=True):
    """A line of a log: of which attempt and node, and of which rank, None for the launcher's own."""

    attempt: int
    node: int
    rank: int | None
    text: bytes


def followed(run: Run, nodes: set[int], seen: Callable[[View], None]) -> Iterator[Line]:
    """The logs of some nodes as they come, of the newest attempt and later ones, until the run has ended.

    Lines of one node keep their order. `seen` is called at each look at the run.
    """
    yield from _Follower(run, nodes, seen).lines()


def gone(
    found: objects.KubeJob, pods: Sequence[objects.Pod], nodes: set[int], attempt: int | None
) -> tuple[set[int], int]:
    """Of some nodes those whose pods of an attempt are not there any more, and the newest attempt that is known of.

    Pods of an attempt that may still bring them are not gone.
    """
    now = observe.view(found, pods)
    wanted = attempt or now.attempt
    if now.state not in ENDED and wanted >= now.attempt:
        return set(), now.attempt
    return nodes - {pod.index for pod in pods if pod.attempt == wanted}, now.attempt


def lines(run: Run, pods: Sequence[objects.Pod], nodes: set[int], attempt: int | None = None) -> Iterator[Line]:
    """What some nodes' pods have printed so far: of the attempt given, else of the newest."""
    wanted = attempt or max((pod.attempt for pod in pods), default=1)
    for pod in sorted(pods, key=lambda pod: (pod.index, pod.metadata.creation_timestamp)):
        if pod.attempt == wanted and pod.index in nodes:
            try:
                for text in logs.read(run.cluster, run.namespace, pod.metadata.name):
                    yield Line(wanted, pod.index, logs.rank_of(text), text)
            except ApiError as error:
                yield _unreadable(pod, wanted, error)


def _unreadable(pod: objects.Pod, attempt: int, error: ApiError) -> Line:
    """What stands in a log's place where the pod's machine does not answer; raises any other error again."""
    if error.status < 500 and not isinstance(error, Silent):
        raise error
    said = f"stackctl: the log of node {pod.index} cannot be read: {pod.spec.node_name} does not answer"
    return Line(attempt, pod.index, None, said.encode())


class _Follower:
    """Reads the logs of many pods at once, a thread each, and hands out their lines in one stream."""

    def __init__(self, run: Run, nodes: set[int], seen: Callable[[View], None]) -> None:
        self._run, self._nodes, self._seen = run, set(sorted(nodes)[:MOST_STREAMS]), seen
        self._lines: queue.Queue[Line | None] = queue.Queue(_WAITING_LINES)
        self._ended: set[str] = set()
        self._readers: dict[str, threading.Thread] = {}
        self._problem: Exception | None = None

    def lines(self) -> Iterator[Line]:
        over, removed = False, None
        while True:
            if not over:
                try:
                    over = self._look()
                except JobFailed as error:  # what its pods print as they end still comes
                    over, removed = True, error
                    self._ended |= self._readers.keys()
            deadline = time.monotonic() + LOOK_SECONDS
            while (left := deadline - time.monotonic()) > 0:
                try:
                    line = self._lines.get(timeout=left)
                except queue.Empty:
                    break
                if line is not None:
                    yield line
                elif over and not self._reading():
                    break
            if self._problem:
                raise self._problem
            if over and not self._reading() and self._lines.empty():
                if removed:
                    raise removed
                return

    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers.values())

    def _look(self) -> bool:
        """Start to read what has started; tell whether the run has ended."""
        found, pods = look(self._run)
        newest = max((pod.attempt for pod in pods), default=1)
        for pod in pods:
            name, state = pod.metadata.name, pod.state
            if state.terminated or pod.status.phase in ("Failed", "Succeeded") or pod.overdue:
                self._ended.add(name)
            begun = state.running or state.terminated
            if begun and pod.index in self._nodes and name not in self._readers:
                attempt = pod.attempt if state.terminated else max(pod.attempt, newest)
                reader = threading.Thread(target=self._read, args=(pod, attempt), daemon=True)
                self._readers[name] = reader
                reader.start()
        present = {pod.metadata.name for pod in pods}
        self._ended |= self._readers.keys() - present
        now = observe.view(found, pods)
        self._seen(now)
        return now.state in ENDED

    def _read(self, pod: objects.Pod, attempt: int) -> None:
        name = pod.metadata.name
        try:
            texts = logs.read(
                self._run.cluster, self._run.namespace, name, follow=True, ended=lambda: name in self._ended
            )
            for text in texts:
                self._lines.put(Line(attempt, pod.index, logs.rank_of(text), text))
        except ApiError as error:
            try:
                self._lines.put(_unreadable(pod, attempt, error))
            except ApiError:
                self._problem = error
        self._lines.put(None)


class Keeper:
    """Keeps followed logs in a run's folder: a file for each rank, as it printed, and one for each launcher."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[int, str], BinaryIO] = {}

    def keep(self, line: Line) -> None:
        """Add a line to its file; the first one of this watch starts the file anew."""
        name = f"node-{line.node}" if line.rank is None else f"rank-{line.rank}"
        file = self._files.get((line.attempt, name))
        if file is None:
            path = self._folder / "logs" / f"attempt-{line.attempt}" / f"{name}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files[line.attempt, name] = path.open("wb")
        file.write((line.text if line.rank is None else logs.without_prefix(line.text)) + b"\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def _job(cluster: Cluster, name: str, namespace: str) -> objects.KubeJob:
    found = cluster.get("Job", name, namespace)
    if found is None or RUN_LABEL not in (found["metadata"].get("labels") or {}):
        raise NoSuchRun(f"the namespace {namespace} has no run named {name}", hint="`stackctl list` shows the runs")
    return msgspec.convert(found, objects.KubeJob)


def _pods(run: Run) -> list[objects.Pod]:
    selector = f"batch.kubernetes.io/controller-uid={run.uid}"
    return run.cluster.items("Pod", objects.Pod, run.namespace, labelSelector=selector)
