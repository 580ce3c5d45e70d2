"""A working folder packed to be shipped: the same files give the same bytes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
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
    """A packed folder: the archive in base64, its SHA-256, and what git keeps out of it."""

    text: str
    sha256: str
    left_out: tuple[str, ...] = ()


def pack(folder: Path) -> Packed:
    """Pack a folder: what git tracks there, or, outside a repository, every file.

    Raises:
        InvalidInput: There is no such folder, nothing in it, or it is too large.
    """
    where = f"--code {folder}"
    if not folder.is_dir():
        raise InvalidInput("is no folder", where=where)
    names, left_out = _names(folder)
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
    return Packed(base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest(), left_out)


def _names(folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """What to ship, and what git would let in but does not track."""
    listing = ["git", "-C", str(folder), "ls-files", "-z"]
    try:
        tracked = process.run([*listing, "--cached"]).split("\0")
        others = process.run([*listing, "--others", "--exclude-standard"]).split("\0")
    except (CommandFailed, MissingHere):
        every = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
        return sorted(str(path.relative_to(folder)) for path in every if "__pycache__" not in path.parts), ()
    present = {name for name in tracked if name and ((folder / name).is_symlink() or (folder / name).is_file())}
    return sorted(present), tuple(sorted(filter(None, others)))


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
