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

from stackctl.engines import process
from stackctl.errors import CommandFailed, InvalidInput, MissingHere

MOST_BYTES = 900 * 1024
"""Packed. A Secret holds 1 MiB."""

MOST_UNPACKED = 256 * 1024 * 1024
"""No folder of code; packing it would only take long."""


class Packed(msgspec.Struct, frozen=True):
    """A packed folder: the archive in base64, its SHA-256, what is in it, and what git keeps out of it."""

    text: str
    sha256: str
    names: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def pack(folder: Path, *, everything: bool = False) -> Packed:
    """Pack a folder: what git tracks there, or, outside a repository, every file; never what is git's own.

    Args:
        everything: Every file in a repository, too.

    Raises:
        InvalidInput: There is no such folder, nothing in it, or it is too large; or git cannot tell what is tracked.
    """
    where = f"--code {folder}"
    if not folder.is_dir():
        raise InvalidInput("is no folder", where=where)
    names, left_out = (_every(folder), ()) if everything or not _repository(folder) else _tracked(folder, where)
    sizes = {name: (folder / name).lstat().st_size for name in names}
    if not names:
        hint = "git tracks nothing here: `git add` what the job needs" if left_out else ""
        raise InvalidInput("there is nothing to ship", where=where, hint=hint)
    if sum(sizes.values()) > MOST_UNPACKED:
        raise _too_large(where, f"{sum(sizes.values()) / 2**20:,.0f} MiB unpacked", sizes)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            _add(archive, folder, name, where)
    data = gzip.compress(raw.getvalue(), mtime=0)
    if len(data) > MOST_BYTES:
        raise _too_large(where, f"{len(data) / 1024:,.0f} KiB packed", sizes)
    return Packed(base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest(), tuple(names), left_out)


def _repository(folder: Path) -> Path | None:
    """The root of the repository that a folder is in, found as git finds it; None if it is in none."""
    start = folder.resolve()
    for path in (start, *start.parents):
        if path.stat().st_dev != start.stat().st_dev:
            return None
        if os.path.lexists(path / ".git"):
            return path
    return None


def _every(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder) for path in paths)
    return sorted(str(name) for name in names if not {".git", "__pycache__"} & set(name.parts))


def _tracked(folder: Path, where: str) -> tuple[list[str], tuple[str, ...]]:
    """What git tracks, and what it would let in but does not track."""
    listing = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        tracked = process.run([*listing, "--cached"]).split("\0")
        others = process.run([*listing, "--others", "--exclude-standard"]).split("\0")
    except (CommandFailed, MissingHere) as error:
        raise _unlisted(error, _repository(folder), where) from None
    present = {name for name in tracked if name and ((folder / name).is_symlink() or (folder / name).is_file())}
    return sorted(present), tuple(sorted(filter(None, others)))


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
        target = path.readlink()
        if target.is_absolute() or not (path.parent / target).resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(f"{name} is a link to {target}, which is not shipped", where=where, hint="remove it")
        info.type, info.linkname = tarfile.SYMTYPE, str(target)
        archive.addfile(info)
    elif stat.S_ISREG(mode):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{name}: {error.strerror}", where=where) from None
        info.size, info.mode = len(data), 0o755 if mode & stat.S_IXUSR else 0o644
        archive.addfile(info, io.BytesIO(data))


def _too_large(where: str, what: str, sizes: dict[str, int]) -> InvalidInput:
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    named = ", ".join(f"{name} ({sizes[name] / 1024:,.0f} KiB)" for name in largest)
    return InvalidInput(
        f"is too large to ship: {what}, {MOST_BYTES // 1024} KiB at most; the largest are {named}",
        where=where,
        hint="leave those out, put the code into an image (--image), or onto a volume (--volume claim:/code)",
    )
