"""Checkpoints that survive a kill at any moment, a full disk and a flipped bit.

A checkpoint is one file, `step-000123.pt`: what `torch.save` writes, then one line with its length and SHA-256.
`torch.load` ignores that line, so the file also opens without this module. It is written under another name, flushed to
disk and renamed, so a name that exists is a whole file; the line proves it again when the file is read.

Where there is no torch, it is `step-000123.npz`, which `np.load` opens.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

from stackrt.train import paths
from stackrt.train.errors import BadInputError, TrainerError

FORMAT = 1
_TRAILER = re.compile(rb"\nstack-checkpoint (\d{4}) (\d{16}) ([0-9a-f]{64})\n\Z")
_TRAILER_BYTES = len(b"\nstack-checkpoint 0001 ") + 16 + 1 + 64 + 1
_NAME = re.compile(r"step-(\d{6,})\.(?:pt|npz)\Z")
_CHUNK = 1 << 22

State = dict[str, Any]
Form = Literal["pt", "npz"]
"""torch's, for tensors, numbers, text and containers of them; numpy's, for plain values, and arrays by name."""


class Damaged(Exception):
    """A file that is no whole checkpoint; says why."""


def save(folder: Path, step: int, state: State, keep: int, form: Form = "pt") -> Path:
    """Write a checkpoint so that it is either whole or absent, then delete all but the newest `keep`.

    Args:
        folder: The checkpoints' folder; made if absent.
        step: Optimizer steps done, part of the file's name.
        state: What the form holds; of torch's, what `weights_only` loading accepts.
        keep: Checkpoints left in the folder, 1 or more.
        form: How the file is written, and its ending.

    Raises:
        TrainerError: The disk is full or failing. Nothing half-written stays and older checkpoints are untouched.
    """
    path = folder / f"step-{step:06d}.{form}"
    temporary = folder / f".{path.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _write(file, state, form)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        paths.sync_folder(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainerError(
            f"{path}: the checkpoint could not be written: {error.strerror}; {_last_good(folder)}"
        ) from None
    for _, old in _steps(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load(path: Path) -> State:
    """Read a checkpoint after proving that it is whole.

    Raises:
        Damaged: It is truncated, changed, of another format, or not a checkpoint.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise Damaged("it is empty")
        file.seek(max(0, size - _TRAILER_BYTES))
        trailer = _TRAILER.search(file.read())
        if trailer is None:
            raise Damaged("its end is missing or damaged")
        version, length, digest = int(trailer[1]), int(trailer[2]), trailer[3].decode()
        if version != FORMAT:
            raise Damaged(f"it has format {version}, and this program reads format {FORMAT}")
        if length != size - _TRAILER_BYTES:
            raise Damaged(f"it holds {size - _TRAILER_BYTES:,} bytes of {length:,}")
        file.seek(0)
        if _sha256(file, length) != digest:
            raise Damaged("its content does not match its checksum")
    if path.suffix == ".npz":
        from stackrt.train import arrays

        return arrays.read(path)
    import torch

    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


def newest(folder: Path, say: Callable[[str], None]) -> tuple[Path, State] | None:
    """The newest good checkpoint; damaged ones are named through `say` and renamed to `….bad`, out of the way.

    Raises:
        BadInputError: A checkpoint cannot be opened at all (permissions, a failing disk): skipping it would hide that.
    """
    for _, path in reversed(_steps(folder)):
        try:
            return path, load(path)
        except Damaged as damage:
            set_aside(path, "bad")
            say(f"checkpoint {path} refused: {damage}; kept as {path.name}.bad, trying the one before")
        except OSError as error:
            raise BadInputError(
                f"{path}: {error.strerror}; make it readable, or start anew with --resume none"
            ) from None
    return None


def named(path: Path) -> State:
    """The checkpoint that the user named.

    Raises:
        BadInputError: It is missing, unreadable or damaged.
    """
    try:
        return load(path)
    except Damaged as damage:
        raise BadInputError(
            f"--resume {path}: refused: {damage}; name another checkpoint, or use --resume auto"
        ) from None
    except OSError as error:
        raise BadInputError(f"--resume {path}: {error.strerror}; name an existing checkpoint file") from None


def same_run(path: Path, state: State, wanted: dict[str, Any]) -> None:
    """See that a checkpoint belongs to the run that wants to go on from it.

    Args:
        path: The checkpoint, for the message.
        state: Its content; `fingerprint` holds what it was made with.
        wanted: The same names with this run's values.

    Raises:
        BadInputError: Names each setting that differs.
    """
    made = state["fingerprint"]
    differ = [name for name in wanted if made.get(name) != wanted[name]]
    if differ:
        told = ", ".join(_difference(name, made.get(name), wanted[name]) for name in differ)
        raise BadInputError(
            f"{path} is from another run: {told}; "
            "go on with its settings, or start anew with another --out or --resume none"
        )


def _difference(name: str, made: object, wanted: object) -> str:
    return "--data gives another text" if name == "--data" else f"{name} was {made}, is {wanted}"


def tidy(folder: Path, after: int, say: Callable[[str], None]) -> None:
    """Prepare the folder for a run that goes on from step `after` (-1: from nothing).

    Removes what a killed write left, and renames later checkpoints to `….old`: they belong to a run that this one
    leaves, and must win neither the next resume nor the count of files to keep.
    """
    for left_over in folder.glob(".step-*.tmp"):
        left_over.unlink(missing_ok=True)
    for step, path in _steps(folder):
        if step > after:
            set_aside(path, "old")
            say(f"checkpoint {path} is from another run; kept as {path.name}.old")


def set_aside(path: Path, why: str) -> None:
    """Rename a file to `name.why`, so that no scan finds it."""
    path.replace(path.with_name(f"{path.name}.{why}"))


class _Hashing:
    """A file for `torch.save` that hashes what passes, and keeps the error which torch would turn into its own."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.length = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(data)
        self.length += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


def _write(file: BinaryIO, state: State, form: Form) -> None:
    hashing = _Hashing(file)
    if form == "npz":
        from stackrt.train import arrays

        hashing.write(arrays.packed(state))
    else:
        _write_torch(hashing, state)
    file.write(f"\nstack-checkpoint {FORMAT:04d} {hashing.length:016d} {hashing.digest.hexdigest()}\n".encode())


def _write_torch(hashing: _Hashing, state: State) -> None:
    import torch

    try:
        torch.save(state, hashing)  # type: ignore[arg-type]  # it needs write() only
    except Exception:
        if hashing.error is not None:
            raise hashing.error from None
        raise


def _sha256(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _steps(folder: Path) -> list[tuple[int, Path]]:
    """The finished checkpoints of a folder, oldest first."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def _last_good(folder: Path) -> str:
    steps = _steps(folder)
    if not steps:
        return "there is no earlier checkpoint; free some space and start again"
    step, path = steps[-1]
    return f"the last good one is {path.name} (step {step}); free some space and start again to go on from there"
