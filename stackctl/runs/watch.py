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

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError, Silent, where_allowed
from stackctl.errors import JobFailed
from stackctl.jobs.job import Job
from stackctl.jobs.kubernetes import RUN_LABEL, SELECTOR
from stackctl.jobs.via import JOB
from stackctl.runs import gangs, holders, logs, managers, node_failures, objects, observe, queue_reader, rejoin
from stackctl.runs.evidence import Facts
from stackctl.runs.handle import NoSuchRun, Tell
from stackctl.runs.node_failures import NodeFailure
from stackctl.runs.observe import View
from stackctl.runs.outage import Outage
from stackctl.runs.states import ENDED

LOOK_SECONDS, LONGEST_LOOK = 1.0, 5.0
"""Between two looks at a run, growing while nothing changes."""

MOST_STREAMS = 32
"""Nodes whose logs are followed at once: the first ones, if more are asked for."""

_WAITING_LINES = 10_000


class Run(msgspec.Struct, frozen=True):
    """A run on a cluster: where, the job that it was made from, and what stands for it there, through `via`."""

    cluster: Cluster
    name: str
    namespace: str
    job: Job
    uid: str
    via: str = JOB


def find(cluster: Cluster, name: str, namespace: str) -> Run:
    """A run by its name.

    Raises:
        NoSuchRun: There is none, or something else made the Job.
    """
    found, via = cluster.get("Job", name, namespace), JOB
    if found is None or RUN_LABEL not in (found["metadata"].get("labels") or {}):
        via, found = managers.find(cluster, name, namespace) or (JOB, None)
    if found is None:
        raise NoSuchRun(f"the namespace {namespace} has no run named {name}", hint="`stackctl list` shows the runs")
    job = msgspec.convert({"metadata": found["metadata"]}, objects.KubeJob)
    return Run(cluster, name, namespace, observe.job_of(job), job.metadata.uid, via)


def look(run: Run) -> tuple[objects.KubeJob, list[objects.Pod]]:
    """The Job and its pods, of all attempts, now; two requests whatever the size, and one more through a manager.

    Raises:
        JobFailed: It was removed meanwhile.
    """
    job = _job(run)
    if job is None or job.metadata.uid != run.uid:
        raise JobFailed(f"{run.name} was removed meanwhile")
    pods = _pods(run, job)
    if _may_end_with_its_namespace(job, pods) and namespace_ends(run.cluster, run.namespace):
        job = msgspec.structs.replace(job, namespace_ends=True)
    return job, pods


def _may_end_with_its_namespace(job: objects.KubeJob, pods: Sequence[objects.Pod]) -> bool:
    """Whether pods are being deleted, and not by the Job. Nothing else tells: no event is written there any more."""
    over = job.metadata.deletion_timestamp or job.failing or job.condition("Complete")
    return not over and any(pod.metadata.deletion_timestamp for pod in pods)


def namespace_ends(cluster: Cluster, name: str) -> bool:
    """Whether a namespace is being deleted; asked in a way that who may only submit there may, too."""
    with where_allowed():
        found = cluster.get("Namespace", name)
        return bool(found and found["metadata"].get("deletionTimestamp"))
    probe = {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "stackctl-", "namespace": name}}
    try:
        cluster.create(probe, dry_run=True)
    except ApiError as error:
        return "being terminated" in error.message
    return False


def view(run: Run) -> View:
    """How the run fares now."""
    return observe.view(*look(run))


def facts(run: Run) -> Facts:
    """All that explains a run: its objects, and events about it and its first pods that wait."""
    found, pods = look(run)
    without = Facts(found, pods)
    names = dict.fromkeys([run.name, found.own.name, *(pod.metadata.name for pod in without.stuck[:2])])
    events: list[objects.Event] = []
    for name in names:
        events += _events(run, name)
    service = run.cluster.get("Service", run.name, run.namespace) is not None
    claims = _unprovided(run, found) if without.stuck and not any(pod.spec.node_name for pod in without.stuck) else []
    for claim in claims:
        events += _events(run, claim.metadata.name)
    groups = [pod.spec.scheduling_group.pod_group_name for pod in without.stuck if not pod.spec.node_name]
    group = gangs.refusal(run.cluster, groups, run.namespace)
    placed = _placed(run) if group or any(pod.unschedulable for pod in without.stuck) else ()
    queue = queue_reader.look(run.cluster, found)
    return Facts(found, pods, events, service, claims=claims, queue=queue, placed=placed, group=group)


def _events(run: Run, name: str) -> list[objects.Event]:
    return run.cluster.items("Event", objects.Event, run.namespace, fieldSelector=f"involvedObject.name={name}")


def _unprovided(run: Run, job: objects.KubeJob) -> list[objects.Claim]:
    """The run's claims that have no volume yet, as far as one may look."""
    volumes = (job.spec.template.get("spec") or {}).get("volumes") or []
    names = [row["persistentVolumeClaim"]["claimName"] for row in volumes if "persistentVolumeClaim" in row]
    with where_allowed():
        found = [run.cluster.get("PersistentVolumeClaim", name, run.namespace) for name in dict.fromkeys(names)]
        claims = [msgspec.convert(row, objects.Claim) for row in found if row]
        return [claim for claim in claims if claim.status.phase == "Pending"]
    return []


def failed_nodes(cluster: Cluster, namespace: str) -> list[NodeFailure]:
    """Where runs of a namespace have failed first in the last day; one request."""
    failed = "status.phase=Failed"
    pods = cluster.items("Pod", objects.Pod, namespace, labelSelector=SELECTOR, fieldSelector=failed)
    return node_failures.failures(pods, datetime.now(UTC))


def _placed(run: Run) -> list[holders.Placed]:
    """The pods that hold what a pod of the run waits for: of the cluster, or of as much of it as may be seen."""
    with where_allowed():
        return run.cluster.items("Pod", holders.Placed, fieldSelector=holders.PLACED, resourceVersion="0")
    return run.cluster.items("Pod", holders.Placed, run.namespace, fieldSelector=holders.PLACED)


def cancel(run: Run) -> None:
    """Remove a run with its pods and everything that belongs to it."""
    run.cluster.delete(managers.kind(run.cluster, run.via), run.name, run.namespace, uid=run.uid)


class Line(msgspec.Struct, frozen=True):
    """A line of a log: of which attempt and node, and of which rank, None for the launcher's own.

    `problem`: it is none of the log's, and says why that cannot be read.
    """

    attempt: int
    node: int
    rank: int | None
    text: bytes
    problem: bool = False


def followed(run: Run, nodes: set[int], seen: Callable[[View], None], tell: Tell) -> Iterator[Line]:
    """The logs of some nodes as they come, of the newest attempt and later ones, until the run has ended.

    Lines of one node keep their order. A cluster that does not answer meanwhile is asked again (`Outage`).

    Args:
        seen: Is called at each look at the run.
        tell: Is given what a person should know meanwhile.
    """
    yield from _Follower(run, nodes, seen, Outage(tell)).lines()


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


def lines(
    run: Run,
    pods: Sequence[objects.Pod],
    nodes: set[int],
    attempt: int | None = None,
    whole: Callable[[Iterator[Line]], Iterator[Line]] = iter,
) -> Iterator[Line]:
    """What some nodes' pods have printed so far: of the attempt given, else of the newest.

    Args:
        whole: Puts before a pod's lines what is missing.
    """
    wanted = attempt or max((pod.attempt for pod in pods), default=1)
    for pod in sorted(pods, key=lambda pod: (pod.index, pod.metadata.creation_timestamp)):
        if pod.attempt == wanted and pod.index in nodes:
            yield from whole(_printed(run, pod, wanted))


def _printed(run: Run, pod: objects.Pod, attempt: int) -> Iterator[Line]:
    try:
        for text in logs.read(run.cluster, run.namespace, pod.metadata.name):
            yield Line(attempt, pod.index, logs.rank_of(text), text)
    except ApiError as error:
        yield _unreadable(pod, attempt, error)


def _unreadable(pod: objects.Pod, attempt: int, error: ApiError) -> Line:
    """What stands in a log's place where the pod's machine does not answer; raises any other error again."""
    if error.status < 500 and not isinstance(error, Silent):
        raise error
    why = error.message if isinstance(error, logs.Unreadable) else f"{pod.spec.node_name} does not answer"
    said = f"stackctl: the log of node {pod.index} cannot be read: {why}"
    return Line(attempt, pod.index, None, said.encode(), problem=True)


class _Follower:
    """Reads the logs of many pods at once, a thread each, and hands out their lines in one stream."""

    def __init__(self, run: Run, nodes: set[int], seen: Callable[[View], None], outage: Outage) -> None:
        self._run, self._nodes, self._seen = run, set(sorted(nodes)[:MOST_STREAMS]), seen
        self._outage = outage
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
        try:
            found, pods = look(self._run)
        except ApiError as error:
            self._outage.bear(error)
            return False
        self._outage.over()
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
        self._files: dict[Path, BinaryIO] = {}
        self._newer: dict[Path, Path] = {}

    def keep(self, line: Line) -> None:
        """Add a line to its file.

        The first one of this watch starts the file anew; where the cluster has lost the log's start, the file goes on.
        """
        path, text = _path(self._folder, line.attempt, line.node, line.rank), _as_printed(line)
        file = self._files.get(path)
        if file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            place = path
            if rejoin.first_line(path) not in (None, text):
                place = self._newer[path] = path.with_suffix(".newer")
            file = self._files[path] = place.open("wb")
        file.write(text + b"\n")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        for path, newer in self._newer.items():
            rejoin.append(path, newer)


def with_start(lines: Iterator[Line], folder: Path, job: Job, tell: Callable[[str], None]) -> Iterator[Line]:
    """Lines of one node, after those that were kept in a run's folder and that the cluster has lost."""
    first = next(lines, None)
    if first is None:
        return
    attempt, node = first.attempt, first.node
    ranks = (None, *range(node * job.procs, (node + 1) * job.procs))
    kept = {rank: path for rank in ranks if (path := _path(folder, attempt, node, rank)).exists()}
    if not kept or (first.rank in kept and rejoin.first_line(kept[first.rank]) == _as_printed(first)):
        yield first
        yield from lines
        return
    there = [first, *lines]
    own = {rank: [_as_printed(row) for row in there if row.rank == rank] for rank in kept}
    joints = {rank: rejoin.joint(path, own[rank]) for rank, path in kept.items()}
    if all(row.problem for row in there) or any(same for _, same in joints.values()):
        tell(f"note: the cluster has only the end of the log of node {node}, if any; its start is from {folder}")
        width = len(str(job.world_size - 1))
        for rank, path in kept.items():
            prefix = b"" if rank is None else f"[{rank:{width}}] ".encode()
            count, same = joints[rank]
            yield from (Line(attempt, node, rank, prefix + text) for text in rejoin.first(path, count - same))
    yield from there


def _path(folder: Path, attempt: int, node: int, rank: int | None) -> Path:
    """Where in a run's folder lines of a rank, or of a node's launcher, are kept."""
    return folder / "logs" / f"attempt-{attempt}" / f"{f'node-{node}' if rank is None else f'rank-{rank}'}.log"


def _as_printed(line: Line) -> bytes:
    """A line as its rank or launcher printed it."""
    return line.text if line.rank is None else logs.without_prefix(line.text)


def _job(run: Run) -> objects.KubeJob | None:
    if run.via != JOB:
        return managers.look(run.cluster, run.via, run.name, run.namespace)
    found = run.cluster.get("Job", run.name, run.namespace)
    return msgspec.convert(found, objects.KubeJob) if found else None


def _pods(run: Run, job: objects.KubeJob) -> list[objects.Pod]:
    if not job.own.uid:
        return []
    selector = f"batch.kubernetes.io/controller-uid={job.own.uid}"
    return run.cluster.items("Pod", objects.Pod, run.namespace, labelSelector=selector)
