"""What a built image holds, read from inside it: packages, licences, sizes, and what looks like a secret."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stackctl.engines import container
from stackrt.checks import files
from stackrt.checks.secret_patterns import PATTERNS

_SCRIPT = Path(__file__).with_name("inside.py")


class DebianPackage(msgspec.Struct, frozen=True):
    """A package that dpkg lists as installed. `licences` are the short names of its copyright file."""

    name: str
    version: str
    architecture: str
    source: str
    licences: tuple[str, ...]


class PythonPackage(msgspec.Struct, frozen=True):
    """A distribution in /opt/venv. `expression` is its SPDX licence if it states one; `bytes`: its files'."""

    name: str
    version: str
    expression: str
    licences: tuple[str, ...]
    bytes: int


class Finding(msgspec.Struct, frozen=True):
    """A file that holds what looks like a secret, or a certificate that no package brought."""

    path: str
    what: str


class Inventory(msgspec.Struct, frozen=True):
    """What an image consists of. `bytecode` is the size of compiled Python, in bytes."""

    system: str
    system_version: str
    debian: tuple[DebianPackage, ...]
    python: tuple[PythonPackage, ...]
    bytecode: int


def take(tag: str) -> Inventory:
    """Look into an image, by its name.

    Raises:
        JobFailed: No container of it can be run.
    """
    return msgspec.json.decode(container.run_script(tag, _SCRIPT.read_text(encoding="utf-8")), type=Inventory)


def secrets(tag: str) -> list[Finding]:
    """What the suite's own search finds in an image when it may read every file; that takes seconds.

    Raises:
        JobFailed: No container of it can be run.
    """
    search, patterns = Path(files.__file__).read_text(encoding="utf-8"), msgspec.json.encode(PATTERNS).decode()
    return msgspec.json.decode(container.run_script(tag, search, patterns), type=list[Finding])
