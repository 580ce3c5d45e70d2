"""What is at a path that a person named, also where a folder above it may not be searched: pathlib raises there."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def is_there(path: str | Path) -> bool:
    """Whether there is anything, as far as we may look."""
    return os.path.exists(path)  # noqa: PTH110


def is_folder(path: str | Path) -> bool:
    """Whether it is a folder, as far as we may look."""
    return os.path.isdir(path)  # noqa: PTH112


def is_same(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to the same place, whether there is anything or not."""
    return os.path.realpath(one) == os.path.realpath(other)


def can_be_written(folder: str | Path) -> bool:
    """Whether we may make files in a folder, or make the folder, where it is not there yet."""
    at = os.path.abspath(folder)  # noqa: PTH100
    while not os.path.lexists(at):
        at = os.path.dirname(at)  # noqa: PTH120
    return os.path.isdir(at) and os.access(at, os.W_OK | os.X_OK)  # noqa: PTH112


def make_writable(folder: Path) -> None:
    """Make a folder, and a file in it that is gone again: permission bits do not tell of a read-only file system.

    Ranks share the folder, and ranks in containers of their own share their process ids too: the file's name is random.

    Raises:
        OSError: One of them cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def see_readable(file: Path) -> None:
    """See that we may read a file: safetensors calls one that we may not read absent.

    Raises:
        OSError: We may not.
    """
    file.open("rb").close()


def open_to_others(files: Iterable[Path]) -> None:
    """Give files the mode of any that we make: safetensors makes its own for their user alone, whatever the umask.

    Source: https://github.com/huggingface/safetensors/issues/782
    """
    for file in files:
        with suppress(OSError):  # a bucket's file system has no modes
            file.chmod(file.parent.stat().st_mode & 0o666)  # the folder has what the umask leaves


def sync_folder(folder: Path) -> None:
    """See that a rename in a folder is on disk: it is only once the folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_file(path: str | Path) -> bool:
    """Whether it is a file, as far as we may look."""
    return os.path.isfile(path)  # noqa: PTH113


def may_search(folder: str | Path) -> bool:
    """Whether what is in a folder can be opened."""
    return os.access(folder, os.X_OK)
