"""A run as its folder tells of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import serving
from stackctl.jobs.job import Job
from stackctl.runs import reach, store, summary
from stackctl.runs.handle import Forwarded, Lines, Outcome, Tell, Told
from stackctl.runs.reach import Inside
from stackctl.runs.states import State
from stackctl.runs.store import Record


class StoredRun:
    """A run of this machine; the handle of it.

    Args:
        where: What its nodes are, in a person's words: `processes`.
        goes_on: Tells whether anything of it still runs.
        end: Ends and removes what is left of it where its stackctl has gone; tells whether there was anything.
        job: If it is at hand; its folder may have been removed meanwhile.
        inside: The way into its nodes, where there is one.
    """

    def __init__(
        self,
        folder: Path,
        record: Record,
        tell: Tell,
        *,
        where: str,
        goes_on: Callable[[], bool],
        end: Callable[[], bool] = lambda: False,
        job: Job | None = None,
        inside: Inside | None = None,
    ) -> None:
        self.folder, self.record, self.tell, self.where = folder, record, tell, where
        self._goes_on, self._end, self._job, self._inside = goes_on, end, job, inside

    @property
    def name(self) -> str:
        """The run's name."""
        return self.record.name

    @property
    def job(self) -> Job:
        """What it runs."""
        return self._job or store.read_job(self.folder)

    def settle(self) -> Record:
        """The record, put right if it says `running` and nothing of the run runs any more."""
        if self.record.state == "running" and not self._goes_on():
            failure = store.read_json(self.folder / "failure.json")
            told = failure.get("exit_code") if failure else None
            code = told if isinstance(told, int) else 1 if failure else None
            self._settled("failed" if failure else "unknown", code)
        return self.record

    def _settled(self, state: State, code: int | None) -> None:
        self.record = msgspec.structs.replace(self.record, state=state, exit_code=code)
        with contextlib.suppress(OSError):
            store.write_json(self.folder / "run.json", self.record)

    def status(self) -> Told:
        """How it fares, or what it came to."""
        record = self.settle()
        result, failure = (store.read_json(self.folder / name) for name in ("result.json", "failure.json"))
        return Told(self._text(record), {"run": record, "result": result, "failure": failure})

    def explain(self) -> Told:
        """Why it failed, if it has."""
        record = self.settle()
        failure = store.read_json(self.folder / "failure.json")
        return Told(self._text(record), {"cause": record.state, "failure": failure})

    def logs(self, chosen: Lines, *, follow: bool = False) -> Iterator[bytes]:
        """The lines of an attempt's logs, each behind its rank."""
        job = self.job
        nodes = chosen.nodes(job)
        newest = self._newest_attempt(chosen)
        attempt = chosen.attempt or newest
        yield from log_lines(self.folder, job, nodes, attempt=attempt, rank=chosen.rank)
        if not log_files(self.folder, job, nodes, attempt=attempt, rank=chosen.rank):
            hint = "those of a run in a cluster are kept by `stackctl logs -f`, or on a --volume"
            where = str(self.folder / "logs" / f"attempt-{attempt}")
            raise InvalidInput("no such logs were kept", where=where, hint=hint)

    def wait(self, put: Callable[[bytes], None] | None = None, seconds: float | None = None) -> Outcome:
        """How it ended."""
        record = self.settle()
        if record.state == "running":
            hint = f"if that shell has gone: stackctl cancel {self.name}"
            raise InvalidInput("runs on this machine, in the shell that started it", where=self.name, hint=hint)
        result, failure = store.read_json(self.folder / "result.json"), None
        text, hint = self._text(record), ""
        if record.state == "failed":
            failure = store.read_json(self.folder / "failure.json")
            text, hint = summary.failure(record, self.folder, failure), f"files of this run: {self.folder}"
        data = {"run": record, "folder": str(self.folder), "result": result, "failure": failure}
        return Outcome(record.state, text, hint, record.exit_code, data)

    def cancel(self) -> str:
        """Ask a service to end, or end what its stackctl has left; what else runs here is its shell's."""
        if self.settle().state != "running":
            return f"{self.name} has ended already" + ("; what was left of it is removed" if self._end() else "")
        if serving.is_service(self.job):
            self._way_in(0).stop(self.job)
            return f"{self.name}: asked to end; it answers what it has, and what still comes for a moment"
        if self._end():
            self._settled("stopped", None)
            return f"{self.name}: cancelled; the stackctl that started it was gone"
        raise InvalidInput("runs on this machine: stop it with Ctrl-C in the shell that started it", where=self.name)

    def execute(self, rank: int, command: Sequence[str] = (), *, tty: bool = False) -> int:
        """Run a command beside a rank, or a shell."""
        return self._way_in(rank).execute(self.job, rank, command, tty=tty)

    def forward(self, rank: int, port: int, *, local: int | None = None) -> AbstractContextManager[Forwarded]:
        """Within the block, a port of a rank's node can be reached on this machine."""
        where = reach.Port(self.name, rank, port, local)
        return reach.forwarded(where, self._way_in(rank), self.job, self._goes_on, self.tell)

    def _way_in(self, rank: int) -> Inside:
        Lines(rank=rank).nodes(self.job)
        if self.settle().state != "running":
            raise reach.has_ended(self.name, self.record.state)
        if self._inside is None:
            raise InvalidInput(f"there is no way into {self.where}", where=self.name)
        return self._inside

    def _newest_attempt(self, chosen: Lines) -> int:
        """The newest attempt, once the lines that are chosen are in the folder."""
        return self.record.attempt

    def _text(self, record: Record) -> str:
        if record.state == "failed":
            why = summary.failure(record, self.folder, store.read_json(self.folder / "failure.json"))
            return f"{self.name}: failed\n{why}"
        if record.state == "unknown":
            named = self.folder.parent == store.home(os.environ)
            how = f"--name {self.folder.name}" if named else f"--out {self.folder}"
            hint = f"go on from its last checkpoint with `stackctl run --resume {how}`"
            if serving.is_service(self.job):
                hint = "start it again with `stackctl serve`"
            return (
                f"{self.name}: has ended, and its stackctl could not write down how; its logs are in "
                f"{self.folder / 'logs'}\n  {hint}"
            )
        result = store.read_json(self.folder / "result.json")
        return summary.text(self.job, record, self.where, self.folder, result)


def log_lines(
    folder: Path, job: Job, nodes: Collection[int], *, attempt: int, rank: int | None = None
) -> Iterator[bytes]:
    """The lines of an attempt's logs in a run's folder, each behind its rank.

    Args:
        nodes: Of the ranks of these nodes only.
        rank: Of this one only.
    """
    width = len(str(job.world_size - 1))
    for number, path in log_files(folder, job, nodes, attempt=attempt, rank=rank).items():
        with path.open("rb") as lines:
            for line in lines:
                yield f"[{number:{width}}] ".encode() + line.rstrip(b"\n")


def log_files(folder: Path, job: Job, nodes: Collection[int], *, attempt: int, rank: int | None) -> dict[int, Path]:
    """Rank -> its log, of those that there are; arguments as for `log_lines`."""
    ranks = [number for number in (range(job.world_size) if rank is None else [rank]) if number // job.procs in nodes]
    paths = {number: folder / "logs" / f"attempt-{attempt}" / f"rank-{number}.log" for number in ranks}
    return {number: path for number, path in paths.items() if path.exists()}
