"""A run on a cluster, and one that its cluster has no more: the handles of both."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.errors import InvalidInput, StackError
from stackctl.jobs.job import Job
from stackctl.runs import (
    claim_reader,
    explain,
    leftovers,
    node_failures,
    objects,
    observe,
    places,
    reach,
    store,
    summary,
    waiting,
    watch,
)
from stackctl.runs.claim_reader import Kept, Source
from stackctl.runs.handle import Forwarded, Lines, Outcome, Tell, Told
from stackctl.runs.observe import View
from stackctl.runs.patience import Patience
from stackctl.runs.progress import Progress
from stackctl.runs.states import ENDED, WAITS
from stackctl.runs.store import Record
from stackctl.runs.stored import StoredRun, log_files, log_lines
from stackctl.runs.watch import Line, Run

MOST_ROWS = 64
"""Nodes that a status shows to a person."""


class ClusterRun:
    """A run that its cluster has; the handle of it."""

    def __init__(self, run: Run, tell: Tell) -> None:
        self._run, self._tell = run, tell
        self._folder = _folder_of(run)

    @property
    def name(self) -> str:
        """The run's name."""
        return self._run.name

    def status(self) -> Told:
        """Its state and attempt, and each node's."""
        job, pods = watch.look(self._run)
        now = observe.view(job, pods)
        record = None
        if now.state in ENDED:
            found = self._kept(job) if len(now.nodes) < self._run.job.nodes else None
            if found:
                now = observe.with_kept(now, found.attempt, found.json("result.json"), found.json("failure.json"))
        record = remember(self._folder, now, self._run.uid)
        trained = summary.training(now.result) if record and now.result else []
        now = msgspec.structs.replace(now, failed_nodes=self._failed_nodes(now))
        return Told("\n".join([*_fares(self._run.job, now), *now.failed_nodes, *trained]), now)

    def explain(self) -> Told:
        """Why it waits or has failed, by its cluster's own words, or what it kept on its claim."""
        facts = watch.facts(self._run)
        now, why = observe.view(facts.job, facts.pods), explain.explain(facts)
        if now.state == "failed" and len(now.nodes) < self._run.job.nodes and not now.failure:
            found = self._kept(facts.job)
            if found:
                facts = facts._replace(kept=found.json("failure.json"))
                now = observe.with_kept(now, found.attempt, None, facts.kept)
                why = explain.explain(facts)
        nodes = self._failed_nodes(now)
        text = "\n".join([f"{self.name}: {now.state}, attempt {now.attempt} of {now.attempts}", why.text, *nodes])
        told = {"run": self.name, "state": now.state, "attempt": now.attempt, **why._asdict(), "failed_nodes": nodes}
        return Told(text, told)

    def _failed_nodes(self, now: View) -> tuple[str, ...]:
        """What is to be said of those of its nodes on which several runs have failed."""
        hosts = [node.host for node in now.nodes if node.host]
        if not hosts:
            return ()
        return tuple(node_failures.told(watch.failed_nodes(self._run.cluster, self._run.namespace), hosts))

    def logs(self, chosen: Lines, *, follow: bool = False) -> Iterator[bytes]:
        """What its pods print; where they have gone, what they kept on the claim. Followed lines are kept, too."""
        nodes = chosen.nodes(self._run.job)
        if follow:
            yield from self._followed(nodes, chosen.rank, Progress(self._run, self._tell).look)
            return
        job, pods = watch.look(self._run)
        gone, newest = watch.gone(job, pods, nodes, chosen.attempt)
        if chosen.attempt and pods and chosen.attempt > newest:
            raise InvalidInput(f"the newest attempt is {newest}", where=f"--attempt {chosen.attempt}")
        found = False
        for line in watch.lines(self._run, pods, nodes, chosen.attempt, self._whole):
            if chosen.rank is None or line.rank == chosen.rank:
                found = True
                yield line.text
        for text in self._kept_lines(job, gone, chosen, chosen.attempt or newest) if gone else ():
            found = True
            yield text
        if not found:
            self._tell(f"nothing printed; `stackctl status {self.name}` says why")

    def wait(self, put: Callable[[bytes], None] | None = None, seconds: float | None = None) -> Outcome:
        """Wait for its end, telling what changes."""
        run, progress, patience = self._run, Progress(self._run, self._tell), Patience(self.name, seconds)
        if put:

            def seen(view: View) -> None:
                progress.look(view)
                if view.state not in ENDED:
                    patience.see()

            for line in self._followed(Lines().nodes(run.job), None, seen):
                put(line)
        now = waiting.wait(run, lambda view: None if put else progress.look(view), patience.sleep, self._tell)
        record = remember(self._folder, now, run.uid)
        if now.state != "succeeded":
            kept_until = f"{run.name} is kept until you remove it: stackctl cancel {run.name}"
            hint = f"attempt {now.attempt} of {now.attempts}; {kept_until}"
            return Outcome(now.state, explain.explain(watch.facts(run)).text, hint)
        if record is None or self._folder is None:
            return Outcome("succeeded", "\n".join(_kept_by(now)))
        where = f"namespace {run.namespace}"
        told = summary.text(run.job, record, where, self._folder, now.result)
        return Outcome("succeeded", "\n".join([told, *_kept_by(now)]))

    def cancel(self) -> str:
        """Remove it with all that belongs to it; its folder stays."""
        now = watch.view(self._run)
        watch.cancel(self._run)
        leftovers.remove(self._run.cluster, self.name, self._run.namespace, self._tell)
        over = now.state in ENDED
        remember(self._folder, now if over else msgspec.structs.replace(now, state="stopped"), self._run.uid)
        return f"{self.name}: {'removed' if over else 'cancelled'}"

    def execute(self, rank: int, command: Sequence[str] = (), *, tty: bool = False) -> int:
        """Run a command beside a rank in its pod, or a shell."""
        return self._pod(rank).execute(self._run.job, rank, command, tty=tty)

    def forward(self, rank: int, port: int, *, local: int | None = None) -> AbstractContextManager[Forwarded]:
        """Within the block, a port of a rank's pod can be reached on this machine."""
        where = reach.Port(self.name, rank, port, local)
        return reach.forwarded(
            where, self._pod(rank), self._run.job, lambda: watch.view(self._run).state not in ENDED, self._tell
        )

    def _pod(self, rank: int) -> reach.Pod:
        """The way into a rank's pod, which must run."""
        run = self._run
        (node,) = Lines(rank=rank).nodes(run.job)
        job, pods = watch.look(run)
        now = observe.view(job, pods)
        if now.state in ENDED:
            raise reach.has_ended(self.name, now.state)
        alive = [pod for pod in pods if pod.index == node and pod.state.running and not pod.overdue]
        if not alive:
            state = next((row.state for row in now.nodes if row.node == node), now.state)
            hint = f"`stackctl explain {self.name}` says why"
            raise InvalidInput(f"node {node} does not run: it is {state}", where=self.name, hint=hint)
        newest = max(alive, key=lambda pod: pod.own_attempt)
        return reach.Pod(run.cluster, run.namespace, newest.metadata.name)

    def _followed(self, nodes: set[int], rank: int | None, seen: Callable[[View], None]) -> Iterator[bytes]:
        """Logs as they come until the run has ended, kept in its folder if it has one."""
        keeper = watch.Keeper(self._folder) if self._folder else None
        if len(nodes) > watch.MOST_STREAMS:
            first = f"the first {watch.MOST_STREAMS} of {len(nodes)} nodes"
            self._tell(f"note: {first}; --node or --rank chooses others")
        try:
            for line in watch.followed(self._run, nodes, seen, self._tell):
                if keeper:
                    keeper.keep(line)
                if rank is None or line.rank == rank:
                    yield line.text
        finally:
            if keeper:
                keeper.close()

    def _whole(self, lines: Iterator[Line]) -> Iterator[Line]:
        """Lines of one node, with what its folder has of them and the cluster has not."""
        if self._folder is None or store.read_record(self._folder) is None:
            return lines
        return watch.with_start(lines, self._folder, self._run.job, self._tell)

    def _kept(self, job: objects.KubeJob) -> Kept | None:
        """How it ended, from its claim; None if it keeps nothing there."""
        source = claim_reader.source_of(job)
        if source is None:
            return None
        with self._place() as folder:
            return _read(self._run.cluster, source, folder, self._tell)

    def _kept_lines(self, job: objects.KubeJob, nodes: Collection[int], chosen: Lines, attempt: int) -> Iterator[bytes]:
        """The logs of nodes whose pods are gone, from its claim, or as they were followed."""
        source = claim_reader.source_of(job)
        if source is None:
            own = self._folder if self._folder and store.read_record(self._folder) else None
            if own and log_files(own, self._run.job, nodes, attempt=attempt, rank=chosen.rank):
                self._tell(f"note: pods are gone; these are their logs as they were followed, from {own}")
                yield from log_lines(own, self._run.job, nodes, attempt=attempt, rank=chosen.rank)
                return
            said = ", ".join(map(str, sorted(nodes)[:10])) + (", …" if len(nodes) > 10 else "")
            self._tell(f"note: gone with their pods: the logs of node {said}; --volume keeps those of the next run")
            return
        with self._place() as folder:
            found = _read(self._run.cluster, source, folder, self._tell, chosen)
            if found:
                yield from log_lines(folder, self._run.job, nodes, attempt=found.attempt, rank=chosen.rank)

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        """Its folder in the store; for a run that another person has submitted, a folder for now."""
        if self._folder:
            yield self._folder
        else:
            with tempfile.TemporaryDirectory(prefix="stackctl-") as temporary:
                yield Path(temporary)


class GoneRun(StoredRun):
    """A run of the store that its cluster has no more: what its folder and its claim still tell."""

    def __init__(self, folder: Path, record: Record, tell: Tell) -> None:
        super().__init__(folder, record, tell, where=f"namespace {record.namespace}", goes_on=lambda: False)

    def settle(self) -> Record:
        """The record; where nobody saw how the run ended, its claim may tell."""
        if self.record.state not in ENDED:
            found = self._read()
            failure = found.json("failure.json") if found else None
            if found and (failure or found.json("result.json")):
                code = int(failure.get("exit_code") or 1) if failure else 0
                self.record = msgspec.structs.replace(
                    self.record, state="failed" if failure else "succeeded", attempt=found.attempt, exit_code=code
                )
                store.write_json(self.folder / "run.json", self.record)
            else:
                self.record = msgspec.structs.replace(self.record, state="gone")
        return self.record

    def cancel(self) -> str:
        """Remove what its Job did not own, if there is any."""
        removed = leftovers.remove(Cluster(self.record.context), self.name, self.record.namespace, self.tell)
        return leftovers.told(self.name, removed) if removed else f"{self.name} is not on the cluster any more"

    def _newest_attempt(self, chosen: Lines) -> int:
        found = self._read(chosen)
        return found.attempt if found else self.record.attempt

    def _read(self, chosen: Lines | None = None) -> Kept | None:
        source = claim_reader.source_in(self.record)
        return _read(Cluster(self.record.context), source, self.folder, self.tell, chosen) if source else None

    def _text(self, record: Record) -> str:
        if record.state == "gone":
            return f"{self.name}: not on the cluster any more, and nobody saw how it ended"
        return super()._text(record)


def remember(folder: Path | None, now: View, uid: str) -> Record | None:
    """Write down in a run's folder how the cluster says that it fares; None if the run is not in the store.

    How it ended is not written over: another command may have looked later, and have written sooner.
    """
    record = store.read_record(folder) if folder else None
    if folder is None or record is None:
        return None
    if now.state not in ENDED and record.state in ENDED:
        return record
    if now.state in ENDED and now.result:
        store.write_json(folder / "result.json", now.result)
    if now.state in ENDED and now.failure:
        store.write_json(folder / "failure.json", now.failure)
    code = 0 if now.state == "succeeded" else (now.failure or {}).get("exit_code") if now.state == "failed" else None
    record = msgspec.structs.replace(
        record,
        state=now.state,
        attempt=now.attempt,
        ended=now.ended or record.ended,
        exit_code=code,
        uid=uid,
        seen=store.now(),
    )
    with contextlib.nullcontext() if now.state in ENDED else contextlib.suppress(OSError):
        store.write_json(folder / "run.json", record)
    return record


def _folder_of(run: Run) -> Path | None:
    """The run's folder in the store; None if it is not there: another person submitted it, or from elsewhere."""
    place = Record(
        name=run.name, backend="kubernetes", attempt=1, started="",
        namespace=run.namespace, context=run.cluster.context, server=run.cluster.host, uid=run.uid,
    )  # fmt: skip
    return places.of_job(store.home(os.environ), place)


def _fares(job: Job, now: View) -> list[str]:
    """How a run fares, as lines."""
    attempts = f"attempt {now.attempt} of {now.attempts}"
    lines = [f"{now.name}: {now.state}, {attempts} ({summary.size(job)}, namespace {now.namespace})"]
    if now.state == "failed":
        lines.append(f"  {(now.failure or {}).get('sentence') or now.reason}")
    elif now.state == "stopped" and now.reason:
        lines.append(f"  {now.reason}; `stackctl cancel {now.name}` removes the run, and sets it free")
    elif now.state in WAITS:
        lines.append(f"  `stackctl explain {now.name}` says why it waits")
    lines += [f"  {text}" for text in _kept_by(now)]
    rows = [(str(node.node), node.state, node.host or "-", node.pod) for node in now.nodes]
    lines.append(summary.table([("NODE", "STATE", "HOST", "POD"), *rows[:MOST_ROWS]]))
    if len(rows) > MOST_ROWS:
        lines.append(f"… {len(rows) - MOST_ROWS} more; --json has all")
    return lines


def _kept_by(now: View) -> list[str]:
    """What a person should know of a run that has ended and still holds what it was given."""
    if not now.kept_by:
        return []
    names = ", ".join(now.kept_by)
    return [f"its pods stay, for the container {names} that the cluster has added: `stackctl explain {now.name}`"]


def _read(cluster: Cluster, source: Source, folder: Path, tell: Tell, chosen: Lines | None = None) -> Kept | None:
    """Have a pod read what a run has kept on its claim, with the logs that are chosen; what is read is said before."""
    tell(f"pods are gone: a pod in the namespace {source.namespace} reads what they kept on the claim {source.claim}")
    attempt = chosen.attempt or 0 if chosen else 0
    pattern = "" if chosen is None else "rank-*" if chosen.rank is None else f"rank-{chosen.rank}"
    try:
        found = claim_reader.read(cluster, source, attempt=attempt, pattern=pattern)
    except StackError as error:
        tell(f"note: the claim {source.claim} was not read: {error.message}")
        return None
    for name in found.save(folder):
        tell(f"note: {name}: its end only; the claim has all of it")
    return found
