"""What is left of a run: in its folder, and on its claim, which a pod of ours reads. What is read is said before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl.errors import InvalidInput, StackError
from stackctl.jobs.job import Job
from stackctl.runs import store, summary
from stackctl.runs.settle import settled
from stackctl.runs.states import State
from stackctl.runs.store import Record

if TYPE_CHECKING:  # they import the client of the cluster, which a run of this machine does not need
    from stackctl.engines.kube import Cluster
    from stackctl.runs import objects
    from stackctl.runs.kept import Kept, Source
    from stackctl.runs.watch import Run


def tell(text: str) -> None:
    """Say something to a person, apart from a run's own output."""
    click.echo(text, err=True)


def pattern_of(rank: int | None) -> str:
    """Which logs of an attempt are a rank's; without a rank, all."""
    return "rank-*" if rank is None else f"rank-{rank}"


def record_of(folder: Path) -> Record:
    """The record of a run in the store."""
    record = store.read_record(folder)
    if record is None:
        raise InvalidInput("there is no run", where=str(folder), hint="`stackctl list` shows the runs")
    return record


def text(folder: Path, record: Record) -> str:
    """What the run's folder tells of how it ended."""
    if record.state == "failed":
        return f"{record.name}: failed\n{summary.failure(record, folder, store.read_json(folder / 'failure.json'))}"
    if record.state == "unknown":
        how = f"--out {folder}" if folder.parent != store.home(os.environ) else f"--name {record.name}"
        return (
            f"{record.name}: has ended, and its stackctl could not write down how; its logs are in {folder / 'logs'}\n"
            f"  go on from its last checkpoint with `stackctl run --resume {how}`"
        )
    if record.backend == "kubernetes" and record.state == "running":
        return f"{record.name}: not on the cluster any more, and nobody saw how it ended"
    return summary.text(store.read_job(folder), record, folder, store.read_json(folder / "result.json"))


def log_lines(
    folder: Path, job: Job, *, attempt: int, rank: int | None = None, nodes: Collection[int] | None = None
) -> Iterator[bytes]:
    """The lines of an attempt's logs in a run's folder, each behind its rank.

    Args:
        rank: Of this one only.
        nodes: Of the ranks of these nodes only.
    """
    width = len(str(job.world_size - 1))
    for number in range(job.world_size) if rank is None else [rank]:
        path = folder / "logs" / f"attempt-{attempt}" / f"rank-{number}.log"
        if (nodes is None or number // job.procs in nodes) and path.exists():
            with path.open("rb") as lines:
                for line in lines:
                    yield f"[{number:{width}}] ".encode() + line.rstrip(b"\n")


def settle(folder: Path) -> Record:
    """The record of a run of this machine, or of one that the cluster has no more, by what is left of it.

    If nobody saw how it ended, its folder or its claim tells.
    """
    record = settled(folder, record_of(folder))
    if record.state != "running" or not record.claim:
        return record
    found = of_record(folder, record)
    failure = found.json("failure.json") if found else None
    if found is None or not (failure or found.json("result.json")):
        return record
    code = int(failure.get("exit_code") or 1) if failure else 0
    state: State = "failed" if failure else "succeeded"
    record = msgspec.structs.replace(record, state=state, attempt=found.attempt, exit_code=code)
    store.write_json(folder / "run.json", record)
    return record


def of_record(folder: Path, record: Record, *, attempt: int = 0, pattern: str = "") -> Kept | None:
    """Read what a run of the store has kept on its claim, though the cluster has the run no more.

    Args:
        attempt: Whose logs; 0 for the newest.
        pattern: Which logs, as `rank-*`; empty for none.
    """
    from stackctl.engines.kube import Cluster
    from stackctl.runs import kept

    source = kept.source_in(record)
    return _read(Cluster(record.context), source, folder, attempt, pattern) if source else None


def of_job(run: Run, job: objects.Job) -> Kept | None:
    """Read how a run ended whose Job is still there; None if it keeps nothing on a claim."""
    from stackctl.runs import kept

    source = kept.source_of(job)
    if source is None:
        return None
    with _folder(run) as folder:
        return _read(run.cluster, source, folder)


def logs_of_job(
    run: Run, job: objects.Job, nodes: Collection[int], *, attempt: int | None, rank: int | None
) -> Iterator[bytes]:
    """The logs of nodes whose pods are gone, from the claim of a run whose Job is still there."""
    from stackctl.runs import kept

    source = kept.source_of(job)
    if source is None:
        said = ", ".join(map(str, sorted(nodes)[:10])) + (", …" if len(nodes) > 10 else "")
        tell(f"note: gone with their pods: the logs of node {said}; --volume keeps those of the next run")
        return
    with _folder(run) as folder:
        found = _read(run.cluster, source, folder, attempt or 0, pattern_of(rank))
        if found:
            yield from log_lines(folder, run.job, attempt=found.attempt, rank=rank, nodes=nodes)


def _read(cluster: Cluster, source: Source, folder: Path, attempt: int = 0, pattern: str = "") -> Kept | None:
    from stackctl.runs import kept

    tell(f"pods are gone: a pod in the namespace {source.namespace} reads what they kept on the claim {source.claim}")
    try:
        found = kept.read(cluster, source, attempt=attempt, pattern=pattern)
    except StackError as error:
        tell(f"note: the claim {source.claim} was not read: {error.message}")
        return None
    for name in found.save(folder):
        tell(f"note: {name}: its end only; the claim has all of it")
    return found


@contextmanager
def _folder(run: Run) -> Iterator[Path]:
    """A run's folder in the store; for one that another person has submitted, a folder for now."""
    folder = store.home(os.environ) / run.name
    if store.read_record(folder) is not None:
        yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="stackctl-") as temporary:
            yield Path(temporary)
