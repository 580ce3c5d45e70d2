"""A .keras file, which is a ZIP file: what it holds, and whether it is whole. Standard library only."""

import lzma
import zipfile
import zlib
from pathlib import Path

DAMAGED = (EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What reading a damaged one raises; one that was packed again may be compressed, or locked by a password."""


def sizes(file: Path) -> dict[str, int]:
    """The length of each file in it; all of them are read.

    Raises:
        ValueError: It is damaged; says in what way.
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
            held = {entry.filename: entry.file_size for entry in archive.infolist()}
    except DAMAGED as error:
        raise ValueError(str(error).strip() or "it is cut off") from None
    if broken:
        raise ValueError(f"{broken} cannot be read")
    return held
