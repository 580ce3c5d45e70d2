"""A working folder packed to be shipped: the same files give the same bytes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import msgspec

from stackctl.engines import git
from stackctl.errors import CommandFailed, InvalidInput, MissingHere

MOST_BYTES = 900 * 1024
"""Packed. A Secret holds 1 MiB."""

_NEVER = (".git", "__pycache__")

MOST_UNPACKED = 256 * 1024 * 1024
"""No folder of code; packing it would only take long."""


class TooLarge(InvalidInput):
    """A folder is no more than code, and more than a Secret holds."""


class Listed(msgspec.Struct, frozen=True):
    """What is in a folder: size by name, what git keeps out of it, and submodules of which nothing is there."""

    sizes: dict[str, int]
    left_out: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class Packed(msgspec.Struct, frozen=True):
    """A packed folder: the archive in base64, and its SHA-256."""

    text: str
    sha256: str


def look(folder: Path, *, everything: bool = False) -> Listed:
    """What of a folder is shipped: what git tracks there, or, outside a repository, every file; never git's own.

    Args:
        everything: Every file in a repository, too.

    Raises:
        InvalidInput: There is no such folder, or nothing in it; or git cannot tell what is tracked.
    """
    where = f"--code {folder}"
    if not folder.is_dir():
        raise InvalidInput("is no folder", where=where)
    own = not everything and _repository(folder)
    names, left_out, absent = _tracked(folder, where) if own else (_every(folder, where), (), ())
    if not names:
        hint = "git tracks nothing here: `git add` what the job needs" if left_out else ""
        raise InvalidInput("there is nothing to ship", where=where, hint=hint)
    return Listed({name: (folder / name).lstat().st_size for name in names}, left_out, absent)


def pack(folder: Path, found: Listed) -> Packed:
    """Pack what was found in a folder.

    Raises:
        TooLarge: A Secret does not hold it.
        InvalidInput: A file cannot be read, or a link leads out of the folder.
    """
    where, sizes = f"--code {folder}", found.sizes
    if sum(sizes.values()) > MOST_UNPACKED:
        raise _too_large(where, f"{sum(sizes.values()) / 2**20:,.0f} MiB unpacked", sizes)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sizes:
            _add(archive, folder, name, where)
    data = gzip.compress(raw.getvalue(), mtime=0)
    if len(data) > MOST_BYTES:
        raise _too_large(where, f"{len(data) / 1024:,.0f} KiB packed", sizes)
    return Packed(base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest())


def _repository(folder: Path) -> Path | None:
    """The root of the repository that a folder is in, found as git finds it; None if it is in none."""
    start = folder.resolve()
    for path in (start, *start.parents):
        if path.stat().st_dev != start.stat().st_dev:
            return None
        if os.path.lexists(path / ".git"):
            return path
    return None


def _every(folder: Path, where: str) -> list[str]:
    def fail(error: OSError) -> None:  # or all of it would be missing, in silence
        name = os.path.relpath(error.filename, folder)
        raise InvalidInput(f"{name}: {error.strerror}", where=where, hint="make it readable, or move it away") from None

    names: list[str] = []
    for above, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if name not in _NEVER]
        links = [name for name in folders if Path(above, name).is_symlink()]
        names += [str(Path(above, name).relative_to(folder)) for name in (*files, *links) if name not in _NEVER]
    return sorted(names)


def _tracked(folder: Path, where: str) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
    """What git tracks, also of submodules; what it would let in but does not track; submodules that are not there."""
    try:
        tracked = git.ask(folder, "ls-files", "-z", "--cached", "--recurse-submodules").split("\0")
        others = git.ask(folder, "ls-files", "-z", "--others", "--exclude-standard").split("\0")
    except (CommandFailed, MissingHere) as error:
        raise _unlisted(error, _repository(folder), where) from None
    present = {name for name in tracked if name and ((folder / name).is_symlink() or (folder / name).is_file())}
    absent = {name for name in tracked if name and name not in present and (folder / name).is_dir()}
    return sorted(present), tuple(sorted(filter(None, others))), tuple(sorted(absent))


def _unlisted(error: CommandFailed | MissingHere, root: Path | None, where: str) -> InvalidInput:
    """Where git cannot say what it tracks: not to ship what it keeps out, as keys and data, in silence."""
    every = "--code-all ships every file but git's own"
    if isinstance(error, MissingHere):
        hint = f"install git, which knows what it tracks; or {every}"
        return InvalidInput(f"{root} is a git repository, and git is not installed here", where=where, hint=hint)
    said = error.output.strip().splitlines() or [f"exit code {error.code}"]
    known = any("dubious ownership" in line for line in said)
    own = f"if you trust its owner: git config --global --add safe.directory {root}"
    hint = f"{own if known else 'mend the repository'}; or {every}"
    return InvalidInput(f"git does not list this repository: {said[0]}", where=where, hint=hint)


def _add(archive: tarfile.TarFile, folder: Path, name: str, where: str) -> None:
    path = folder / name
    info = tarfile.TarInfo(name)
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, link(folder, name, where)
        archive.addfile(info)
    elif stat.S_ISREG(mode):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{name}: {error.strerror}", where=where) from None
        info.size, info.mode = len(data), shipped_mode(mode)
        archive.addfile(info, io.BytesIO(data))


def link(folder: Path, name: str, where: str) -> str:
    """Where a link in a folder leads.

    Raises:
        InvalidInput: It leads out of the folder.
    """
    target = (folder / name).readlink()
    # Not pathlib's resolve, which fails on links that go round in a circle.
    end, inside = (Path(os.path.realpath(path)) for path in ((folder / name).parent / target, folder))
    if target.is_absolute() or not end.is_relative_to(inside):
        raise InvalidInput(f"{name} is a link to {target}, which is not shipped", where=where, hint="remove it")
    return str(target)


def shipped_mode(mode: int) -> int:
    """The mode that a file has in pods: of ours only whether it is a program counts."""
    return 0o755 if mode & stat.S_IXUSR else 0o644


def _too_large(where: str, what: str, sizes: dict[str, int]) -> TooLarge:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    named = ", ".join(f"{name} ({sizes[name] / 1024:,.0f} KiB)" for name in largest)
    return TooLarge(
        f"is too large to ship: {what}, {MOST_BYTES // 1024} KiB at most; the largest are {named}",
        where=where,
        hint="leave those out, name a claim that takes it (--code-claim NAME), or put it into an image (--image)",
    )
