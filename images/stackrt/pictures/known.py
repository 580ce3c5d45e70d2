"""The data sets that have a name, as sets.toml says it, and where they are kept. Standard library only."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

SHIPPED = "digits"
"""The set that is in the payload: nothing is fetched for it."""

TFDS = "tfds:"
"""How the name of a set of tensorflow-datasets begins."""

FOLDER = "STACK_DATA"
"""The variable that names the folder where fetched sets are kept."""


class File(NamedTuple):
    """A file of a set. `size` is in bytes, as its first source has it; `sha256` are the sums that are right."""

    name: str
    size: int
    sha256: tuple[str, ...]


class Debian(NamedTuple):
    """A package of Debian that holds the files in a folder: its path below a mirror."""

    path: str
    size: int
    sha256: str
    folder: str


class Known(NamedTuple):
    """A set that has a name."""

    name: str
    title: str
    licence: str
    home: str
    form: Literal["idx", "cifar"]
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    """Addresses of folders that hold the files, tried in this order."""
    files: tuple[File, ...]
    debian: Debian | None

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)


def load() -> dict[str, Known]:
    """Every set by name."""
    return {
        name: Known(
            name,
            row["title"],
            row["licence"],
            row["home"],
            row["form"],
            tuple(row["classes"]),
            tuple(row["sources"]),
            tuple(File(file["name"], file["size"], tuple(file["sha256"])) for file in row["files"]),
            Debian(**row["debian"]) if "debian" in row else None,
        )
        for name, row in _file()["sets"].items()
    }


def _file() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "sets.toml").read_text(encoding="utf-8"))


def folder(environment: Mapping[str, str]) -> Path:
    """Where fetched sets are kept: STACK_DATA, else below the user's cache."""
    if named := environment.get(FOLDER):
        return Path(os.path.expanduser(named))  # noqa: PTH111 - Path raises where there is no such user
    # XDG's rule: a relative path is invalid there, and ignored.
    given = environment.get("XDG_CACHE_HOME", "")
    cache = Path(given) if given.startswith("/") else Path(environment.get("HOME") or "/") / ".cache"
    return cache / "stackctl" / "data"
