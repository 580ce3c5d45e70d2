"""What a built image holds, read from inside it: packages, licences, sizes, and what should not be there."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stackctl.engines import container
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
    """All that is known of an image's files. `bytecode` is the size of compiled Python, in bytes."""

    system: str
    system_version: str
    debian: tuple[DebianPackage, ...]
    python: tuple[PythonPackage, ...]
    bytecode: int
    secrets: tuple[Finding, ...]


def take(tag: str, *, search: bool = False) -> Inventory:
    """Look into an image.

    Args:
        tag: The image's name.
        search: Also read every file up to 4 MiB that is no library, for secrets; that takes seconds.

    Raises:
        JobFailed: No container of it can be run.
    """
    arguments = [msgspec.json.encode(PATTERNS).decode()] if search else []
    answer = container.run_script(tag, _SCRIPT.read_text(encoding="utf-8"), *arguments)
    return msgspec.json.decode(answer, type=Inventory)
