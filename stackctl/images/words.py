"""Which words the catalog may hold, so that none of them makes another Dockerfile than it says. Pure.

They are put into Dockerfiles, shell commands and image names as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stackctl.errors import InvalidInput
from stackrt.frameworks import OF_IMAGES

_APT = (re.compile(r"[a-z0-9][a-z0-9+.-]+"), "a Debian package's name, such as libnuma1")
_NAME = (
    re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*"),
    "lower-case letters and digits, with dots or dashes between them: it becomes an image's name",
)
_IMAGE = (re.compile(r"[a-z0-9][a-z0-9._/:-]*(@sha256:[0-9a-f]{64})?"), "an image's name, such as debian:bookworm-slim")
_TEXT = (re.compile(r'[^"$`\\\r\n]*'), "one line without quotes, $ and \\: it becomes a label")
_URL = (re.compile(r"https?://[^\s\"'$`;\\]+"), "an address that starts with https://")
_VERSION = (re.compile(r"\d+(\.\d+)*([a-z]+\d+)?"), "a version, such as 13.0")
_REQUIREMENT = (
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._,-]+\])?==[A-Za-z0-9.+!_-]+"),
    "name==version; `stackctl lock` finds what else is needed",
)
_PACKAGE = (re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), "a package's name without a version, such as promise")
_FRAMEWORK = (re.compile("|".join(OF_IMAGES)), " or ".join(OF_IMAGES))
_PATH = (re.compile(r"[A-Za-z0-9_~+./-]+"), "a path below a mirror")
_FILE = (re.compile(r"[a-z0-9_.-]+\.dockerfile\.j2"), "a file of images/templates")

_KEYS = {
    "apt": _APT,
    "build_apt": _APT,
    "compiler": _APT,
    "image": _IMAGE,
    "summary": _TEXT,
    "index": _URL,
    "python": _VERSION,
    "cuda": _VERSION,
    "minimum_driver": _VERSION,
    "gpu_architectures": _VERSION,
    "uv": _VERSION,
    "version": _VERSION,
    "sources": _PACKAGE,
    "devel_packages": _REQUIREMENT,
    "framework": _FRAMEWORK,
    "path": _PATH,
    "template": _FILE,
}
"""Key of any table -> what its words must be. `packages` of an image have a check of their own."""

_TABLES_OF_NAMES = ("images", "variants", "bases")


def check(document: Mapping[str, Any], where: str) -> None:
    """See that each word of a catalog is one.

    Args:
        where: The file's name, for errors.

    Raises:
        InvalidInput: One is not; names file and key.
    """
    _table(document, f"{where}: ", names=False)


def _table(rows: Mapping[str, Any], where: str, *, names: bool) -> None:
    for key, value in rows.items():
        place = f"{where}{key}"
        if names:
            _word(key, _NAME, place)
        if isinstance(value, Mapping):
            _table(value, f"{place}.", names=key in _TABLES_OF_NAMES and not names)
        elif key in _KEYS and not names:
            for number, word in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(word, str):  # of another type: told where types are checked
                    _word(word, _KEYS[key], f"{place}[{number}]" if isinstance(value, list) else place)


def _word(word: str, kind: tuple[re.Pattern[str], str], where: str) -> None:
    pattern, meaning = kind
    if not pattern.fullmatch(word):
        raise InvalidInput(f"{word!r} cannot be used here", where=where, hint=f"write {meaning}")


def one_version_each(lists: Mapping[str, Sequence[str]]) -> None:
    """See that each requirement is `name==version`, and that no package is asked for twice.

    Args:
        lists: Where each list stands, and its requirements.

    Raises:
        InvalidInput: One is not, or a package is; names file, key and number.
    """
    seen: dict[str, str] = {}
    for place, requirements in lists.items():
        for number, requirement in enumerate(requirements):
            if not _REQUIREMENT[0].fullmatch(requirement):
                raise InvalidInput(
                    f"{requirement!r} does not name one version",
                    where=f"{place}[{number}]",
                    hint="write it as name==version; `stackctl lock` finds what else is needed",
                )
            name = package(requirement)
            if name in seen:
                raise InvalidInput(
                    f"{requirement!r} conflicts with {seen[name]!r}: a package has one version in an image",
                    where=f"{place}[{number}]",
                    hint="remove one of them",
                )
            seen[name] = requirement


def package(requirement: str) -> str:
    """`tensorflow` of `TensorFlow[and-cuda]==2.21.0`."""
    return re.split(r"\[|==", requirement)[0].lower().replace("_", "-")


def release(requirement: str) -> str:
    """`2.13.0` of `torch==2.13.0+cpu`."""
    return requirement.partition("==")[2].partition("+")[0]
