"""A run that its stackctl stays with: its folder, which one run holds at a time, and its record, which is kept true."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stackctl.engines.file_lock import held
from stackctl.errors import NameTaken
from stackctl.jobs.job import Job
from stackctl.runs import store, summary
from stackctl.runs.handle import Tell
from stackctl.runs.states import State
from stackctl.runs.store import Record
from stackrt.signals import STOPS, undisturbed


@contextmanager
def claimed(folder: Path, job: Job, *, resume: bool) -> Iterator[tuple[int, int]]:
    """Take a run's folder as `store.create` does, and keep others from going on with the run within the block.

    Two that go on at once would write over each other's checkpoints. Gives the attempt, and the descriptor that
    holds the folder.

    Raises:
        NameTaken: As `store.create`, or the run is still going on.
    """

    def busy() -> None:
        raise NameTaken("this run is still going on", where=str(folder), hint="wait for its end, or stop it")

    if resume:
        with held(folder, busy) as hold:
            yield store.create(folder, job, resume=True), hold
    else:
        attempt = store.create(folder, job, resume=False)
        with held(folder, busy) as hold:
            yield attempt, hold


def new_token() -> str:
    """The run's secret."""
    return os.urandom(32).hex()


def announcement(job: Job, where: str, folder: Path) -> str:
    """What a person sees first."""
    return f"{job.name}: {summary.size(job)} as {where}, in {folder}"


@contextmanager
def recorded(begun: Record, folder: Path, tell: Tell) -> Iterator[Callable[[Sequence[int]], Record]]:
    """Keep run.json true: running inside the block, then how it ended, also where the nodes could not be started.

    Gives what makes the record of the nodes' exit codes. Where run.json cannot be written that is told; a job's
    outcome does not depend on it.
    """
    _write(folder, begun, tell)
    final = msgspec.structs.replace(begun, state="failed")

    def ended(codes: Sequence[int]) -> Record:
        nonlocal final
        code = next((code for code in codes if code != 0), 0)
        # No failure.json, and a signal's code: the job was asked to end, and did.
        stopped = code in [128 + number for number in STOPS] and not (folder / "failure.json").exists()
        state: State = "succeeded" if code == 0 else "stopped" if stopped else "failed"
        final = msgspec.structs.replace(begun, state=state, exit_code=code, ended=store.now())
        return final

    try:
        yield ended
    except KeyboardInterrupt:
        final = msgspec.structs.replace(begun, state="stopped", exit_code=130)
        raise
    finally:
        with undisturbed():
            _write(folder, msgspec.structs.replace(final, ended=final.ended or store.now()), tell)


def _write(folder: Path, record: Record, tell: Tell) -> None:
    try:
        store.write_json(folder / "run.json", record)
    except OSError as error:
        why = f"{folder / 'run.json'}: could not be written: {error.strerror}"
        tell(f"note: {why}; what became of the run is told here only")
