"""Take files out of a Debian package, without dpkg: it is an `ar` archive with a tar archive in it."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
from collections.abc import Collection
from pathlib import Path

from stackctl.errors import JobFailed

_MAGIC = b"!<arch>\n"
_HEADER = 60


def unpack(package: Path, below: str, names: Collection[str], folder: Path) -> None:
    """Put files of a package into a folder; each is there whole or not at all.

    Args:
        package: The package.
        below: The folder in it that holds them.
        names: Their names.
        folder: Where they go.

    Raises:
        JobFailed: It is no package, or lacks one of them.
    """
    left = set(names)
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(package)), mode="r:*") as tar:
            for member in tar:
                path, _, name = member.name.removeprefix("./").rpartition("/")
                file = tar.extractfile(member) if path == below and name in left and member.isfile() else None
                if file is None:
                    continue
                part = folder / f".{name}.unpacked"
                try:
                    with part.open("wb") as out:
                        while chunk := file.read(1 << 20):
                            out.write(chunk)
                        out.flush()
                        os.fsync(out.fileno())
                    part.replace(folder / name)
                finally:
                    part.unlink(missing_ok=True)
                left.discard(name)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise JobFailed(f"cannot be unpacked: {error}", where=package.name) from None
    if left:
        raise JobFailed(f"holds no {', '.join(sorted(left))}", where=package.name)


def _data(package: Path) -> bytes:
    """The member that holds the package's files."""
    content = package.read_bytes()
    if not content.startswith(_MAGIC):
        raise JobFailed("is no Debian package", where=package.name)
    at = len(_MAGIC)
    while at + _HEADER <= len(content):
        header = content[at : at + _HEADER]
        size = header[48:58].strip()
        if not size.isdigit():
            break
        begin = at + _HEADER
        if header[:16].startswith(b"data.tar"):
            return content[begin : begin + int(size)]
        at = begin + int(size) + int(size) % 2
    raise JobFailed("is a Debian package without files", where=package.name)
