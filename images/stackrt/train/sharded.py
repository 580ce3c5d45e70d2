"""Checkpoints that each rank writes its share of, beside the training, and that any other mesh can read.

A checkpoint is a folder, `step-000123`: what `torch.distributed.checkpoint` writes, then `COMMITTED`, which lists every
file with its length and SHA-256. That marker is written last, so a folder without it was never finished.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as read_state
from torch.distributed.checkpoint.state_dict_saver import save as write_state

from stackrt.train import checkpoint
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.ranks import Ranks
from stackrt.train.report import write_atomically

FORMAT = 1
MARKER = "COMMITTED"
_NAME = re.compile(r"step-(\d{6,})\Z")

Note = dict[str, Any]
"""What the marker keeps beside the list of files: step, fingerprint, options, history."""
State = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Saved:
    """A save that has ended.

    Attributes:
        path: The checkpoint's folder.
        stall: Seconds that the training stood still for it.
        seconds: From its beginning until it was committed.
        error: Why it failed, else empty.
    """

    path: Path
    stall: float
    seconds: float
    error: str = ""


class Saver:
    """Writes checkpoints; one at a time, and in order.

    Args:
        folder: Where the checkpoints are; the same for all ranks.
        keep: How many committed ones stay.
        beside: Write in a thread, so that the training goes on; else it waits.
        ranks: All of them take part in each call.
    """

    def __init__(self, folder: Path, keep: int, beside: bool, ranks: Ranks) -> None:
        self._folder = folder
        self._keep = keep
        self._ranks = ranks
        self._group = dist.new_group(backend="gloo")  # its collectives run beside those of the training
        self._thread = ThreadPoolExecutor(1, "checkpoint") if beside else None
        self._stager = DefaultStager(StagingOptions(False, False, False, False))
        self._pending: tuple[Future[Saved], float] | None = None

    def start(self, step: int, state: State, note: Note) -> Saved | None:
        """Begin to save; returns how the save before ended, for which this one waits, or with `sync` how this one did.

        Args:
            step: Steps done.
            state: Tensors by name, whole or sharded; what they hold now is what is saved.
            note: For the marker.
        """
        began = time.perf_counter()
        before = self.wait()
        path = self._folder / f"step-{step:06d}"
        if self._thread is None:
            saved = self._write(path, state, note, began)
            return Saved(path, time.perf_counter() - began, saved.seconds, saved.error)
        staged = self._stager.stage(state)
        assert isinstance(staged, dict)  # noqa: S101 - only an asynchronous stager gives a future
        future = self._thread.submit(self._write, path, staged, note, began)
        self._pending = future, time.perf_counter() - began
        return before

    def poll(self) -> Saved | None:
        """How the save that was begun has ended, once it has on all ranks."""
        if self._pending is None or not all(self._ranks.gather(self._pending[0].done())):
            return None
        return self.wait()

    def wait(self) -> Saved | None:
        """The same, after waiting for it."""
        if self._pending is None:
            return None
        future, stall = self._pending
        self._pending = None
        saved = future.result()
        return Saved(saved.path, stall, saved.seconds, saved.error)

    def _write(self, path: Path, state: State, note: Note, began: float) -> Saved:
        """Write this rank's share; then rank 0 commits what all have written. The outcome is the same on all ranks."""
        error = ""
        files: dict[str, list[Any]] = {}
        try:
            if self._ranks.first:
                shutil.rmtree(path, ignore_errors=True)  # what a killed save at this step left
            write_state(state, storage_writer=FileSystemWriter(path), process_group=self._group)
            files = {file.name: [file.stat().st_size, _sha256(file)] for file in self._own_files(path)}
        except (CheckpointException, OSError) as failure:
            error = _told(failure, self._ranks.rank)
        shares: list[tuple[str, dict[str, list[Any]]]] = [(error, files)] * self._ranks.world_size
        dist.all_gather_object(shares, (error, files), group=self._group)
        error = next((told for told, _ in shares if told), "")
        if self._ranks.first:
            error = error or self._commit(path, note, {name: row for _, share in shares for name, row in share.items()})
            if error:
                shutil.rmtree(path, ignore_errors=True)  # half a checkpoint is of no use, and takes the space
        outcome = [error]
        dist.broadcast_object_list(outcome, src=0, group=self._group)
        return Saved(path, 0.0, time.perf_counter() - began, outcome[0])

    def _own_files(self, path: Path) -> list[Path]:
        own = sorted(path.glob(f"__{self._ranks.rank}_*"))
        return [*own, path / ".metadata"] if self._ranks.first else own

    def _commit(self, path: Path, note: Note, files: dict[str, list[Any]]) -> str:
        try:
            write_atomically(path / MARKER, json.dumps({"format": FORMAT, **note, "files": files}) + "\n")
            for _, old in committed(self._folder)[: -self._keep]:
                (old / MARKER).unlink(missing_ok=True)  # first: a removal that is cut short leaves no checkpoint
                shutil.rmtree(old, ignore_errors=True)
        except (OSError, TrainerError) as failure:
            return _told(failure, 0)
        return ""


def _told(failure: BaseException, rank: int) -> str:
    if isinstance(failure, CheckpointException) and failure.failures:
        rank, (cause, _) = next(iter(sorted(failure.failures.items())))
        failure = cause
    text = failure.strerror if isinstance(failure, OSError) and failure.strerror else str(failure).splitlines()[0]
    return f"rank {rank}: {text}"


def last_good(folder: Path) -> str:
    """Which checkpoint is left when a save failed, in words."""
    steps = committed(folder)
    return f"the last good one is {steps[-1][1].name}" if steps else "there is no earlier checkpoint"


# ---------------------------------------------------------------------------------------------------------------------
# Finding one


class Found(NamedTuple):
    """A checkpoint to go on from."""

    path: str
    note: Note


def committed(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a folder, oldest first."""
    return [(step, path) for step, path in _folders(folder) if (path / MARKER).is_file()]


def find(folder: Path, choice: str, ranks: Ranks, wanted: dict[str, Any], say: Say) -> Found | None:
    """The checkpoint to go on from, or None for step 0; the ranks share the work of reading it through.

    Args:
        folder: Where this run keeps its checkpoints.
        choice: `auto` (the newest good one in `folder`), `none`, or a checkpoint's path.
        ranks: All of them get the same answer.
        wanted: The run's identity, see `checkpoint.same_run`.
        say: Told on rank 0 about checkpoints that are passed over or moved out of the way.

    Raises:
        BadInputError: The named checkpoint cannot be used, or it is another run's.
    """
    candidates = [choice] if choice not in ("auto", "none") else []
    with ranks.together():
        if ranks.first and choice == "auto":
            _name_unfinished(folder, say)
            candidates = [str(path) for _, path in reversed(committed(folder))]
    found: Found | None = None
    for path in map(Path, ranks.from_first(candidates)):
        note, damage = _examine(path, ranks)
        if not damage:
            found = Found(str(path), note)
            break
        if choice != "auto":
            raise BadInputError(f"--resume {path}: refused: {damage}; name another checkpoint, or use --resume auto")
        with ranks.together():
            if ranks.first:
                _set_aside(path, "bad")
                say(f"checkpoint {path} refused: {damage}; kept as {path.name}.bad, trying the one before")
    with ranks.together():
        if ranks.first:
            if found:
                checkpoint.same_run(Path(found.path), found.note, wanted)
            _leave_later(folder, found.note["step"] if found else -1, say)
    return found


def prove(path: Path, told: str) -> None:
    """See in one process, without ranks, that a checkpoint is whole; `told` begins an error.

    Raises:
        BadInputError: It was never finished, or a file of it is damaged.
    """
    try:
        files = json.loads((path / MARKER).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInputError(f"{told}: {path.name} is refused: its {MARKER} cannot be read: {error}") from None
    damage = next(filter(None, (_damage(path / name, *row) for name, row in sorted(files.items()))), "")
    if damage:
        raise BadInputError(f"{told}: {path.name} is refused: {damage}")


def load(path: str, state: State, ranks: Ranks) -> None:
    """Read a checkpoint into the tensors of a state, however they are sharded.

    Raises:
        BadInputError: It does not hold them.
    """
    try:
        read_state(state, storage_reader=FileSystemReader(path))
    except CheckpointException as failure:
        raise BadInputError(f"{path}: {_told(failure, ranks.rank)}") from None


def state_of(
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
    kept: Mapping[str, Tensor] | None = None,
) -> State:
    """All that a checkpoint holds: weights and moments by the parameters' names; moments are made if there are none.

    Args:
        parameters: Those that are trained.
        optimizer: Of them.
        step: Steps done.
        kept: What belongs to the model beside them.
    """
    state: State = {"model": {**parameters, **(kept or {})}, "exp_avg": {}, "exp_avg_sq": {}}
    for name, parameter in parameters.items():
        held = optimizer.state[parameter]
        if not held:
            count = torch.tensor(float(step), device=parameter.device)
            held |= {"step": count, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        state["exp_avg"][name], state["exp_avg_sq"][name] = held["exp_avg"], held["exp_avg_sq"]
    return state


def shared_by_all(folder: Path, ranks: Ranks) -> bool:
    """Whether all ranks see the same folder; without that, no rank could read what the others wrote."""
    probe = folder / ".shared"
    token = ranks.from_first(f"{time.time_ns()} {os.getpid()}")
    with ranks.together(), _written(folder):
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_text(token)
    try:
        seen = probe.read_text() == token
    except OSError:
        seen = False
    everywhere = all(ranks.gather(seen))
    if ranks.first:
        probe.unlink(missing_ok=True)
    return everywhere


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInputError(f"--out: {folder}: not writable: {error.strerror}; choose another folder") from None


def _examine(path: Path, ranks: Ranks) -> tuple[Note, str]:
    """A checkpoint's note, and what is wrong with it; each rank reads some of its files through."""
    note: Note = {}
    damage = ""
    try:
        note = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        damage = f"it was never finished: it has no {MARKER}" if path.is_dir() else "there is no such folder"
    except (OSError, ValueError) as error:
        damage = f"its {MARKER} cannot be read: {error}"
    if note and note.get("format") != FORMAT:
        damage = f"it has format {note.get('format')}, and this program reads format {FORMAT}"
    if not damage:
        mine = sorted(note["files"].items())[ranks.rank :: ranks.world_size]
        damage = next(filter(None, (_damage(path / name, *row) for name, row in mine)), "")
    return note, next(filter(None, ranks.gather(damage)), "")


def _damage(file: Path, size: int, digest: str) -> str:
    try:
        held = file.stat().st_size
        if held != size:
            return f"{file.name} holds {held:,} bytes of {size:,}"
        return "" if _sha256(file) == digest else f"the content of {file.name} does not match its checksum"
    except OSError as error:
        return f"{file.name}: {error.strerror}"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _folders(folder: Path) -> list[tuple[int, Path]]:
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _name_unfinished(folder: Path, say: Say) -> None:
    for _, path in _folders(folder):
        if not (path / MARKER).is_file():
            say(f"checkpoint {path} was never finished, and is passed over")
            shutil.rmtree(path, ignore_errors=True)


def _leave_later(folder: Path, after: int, say: Say) -> None:
    """Rename later checkpoints: they belong to a run that this one leaves."""
    for step, path in _folders(folder):
        if step > after:
            _set_aside(path, "old")
            say(f"checkpoint {path} is from another run; kept as {path.name}.old")


def _set_aside(path: Path, why: str) -> None:
    shutil.rmtree(path.with_name(f"{path.name}.{why}"), ignore_errors=True)
    checkpoint.set_aside(path, why)
