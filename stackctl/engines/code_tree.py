"""A working folder as a tree of files by their content: what it takes to send only what is not there yet."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from stackctl.engines import archive
from stackctl.engines.archive import Listed
from stackctl.errors import InvalidInput

CHUNK, AT_ONCE = 1 << 20, 8

PART = 65_536
"""Bytes that go into one message."""


class Tree(msgspec.Struct, frozen=True):
    """A folder: its files and links as JSON, that text's SHA-256, and by content a file and its size.

    The same files give the same text, wherever the folder is.
    """

    folder: Path
    text: bytes
    sha256: str
    contents: dict[str, tuple[str, int]]

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(size for _, size in self.contents.values())


def read(folder: Path, found: Listed) -> Tree:
    """The tree of what was found in a folder.

    Raises:
        InvalidInput: A file cannot be read, or a link leads out of the folder.
    """
    where = f"--code {folder}"
    modes = {name: (folder / name).lstat().st_mode for name in found.sizes}
    links = [[name, archive.link(folder, name, where)] for name, mode in modes.items() if stat.S_ISLNK(mode)]
    names = [name for name, mode in modes.items() if stat.S_ISREG(mode)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        digests = list(pool.map(lambda name: _digest(folder / name, name, where), names))
    files = [[name, *digest, archive.shipped_mode(modes[name])] for name, digest in zip(names, digests, strict=True)]
    try:
        text = json.dumps({"files": files, "links": links}, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidInput("the name of a file in it is not UTF-8", where=where, hint="rename that file") from None
    contents = {digest: (name, size) for name, (digest, size) in zip(names, digests, strict=True)}
    return Tree(folder, text, hashlib.sha256(text).hexdigest(), contents)


def _digest(path: Path, name: str, where: str) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                found.update(data)
                size += len(data)
    except OSError as error:
        raise InvalidInput(f"{name}: {error.strerror}", where=where) from None
    return found.hexdigest(), size


def chunks(tree: Tree, digest: str) -> Iterator[bytes]:
    """A content of a tree, in parts: as many bytes as it had.

    Raises:
        InvalidInput: The file that had it cannot be read any more, or has become shorter.
    """
    name, left = tree.contents[digest]
    where = f"--code {tree.folder}"
    try:
        with (tree.folder / name).open("rb") as file:
            while left and (data := file.read(min(PART, left))):
                left -= len(data)
                yield data
    except OSError as error:
        raise InvalidInput(f"{name}: {error.strerror}", where=where) from None
    if left:
        raise InvalidInput(f"{name} has changed while it was sent", where=where, hint="submit it again")
