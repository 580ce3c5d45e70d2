"""Hashed requirements files, as text: parse, split into layers, identify. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import msgspec

_ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\\n]+?))?\s*(?:\\|$)"
)


class Pin(msgspec.Struct, frozen=True):
    """One package of a lock: its name, exact version, environment marker if any, and its lines with the hashes."""

    name: str
    version: str
    marker: str
    text: str

    @property
    def hashes(self) -> tuple[str, ...]:
        """The allowed digests, `sha256:…` each."""
        return tuple(re.findall(r"--hash=(sha256:[0-9a-f]{64})", self.text))

    @property
    def digest(self) -> str:
        """Identity of the pin's lines: 16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def parse(text: str) -> list[Pin]:
    """The pins of a requirements file; comments and blank lines are passed over."""
    pins: list[Pin] = []
    for block in re.split(r"\n(?=\S)", "\n" + text):
        entry = _ENTRY.match(block.strip().split("\n", 1)[0])
        if entry:
            lines = [line.rstrip() for line in block.strip().splitlines() if not line.lstrip().startswith("#")]
            pins.append(Pin(entry["name"], entry["version"], entry["marker"] or "", "\n".join(lines)))
    return pins


def line_of(text: str, name: str) -> int:
    """The line of a lock that a package begins on, counted from 1."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(f"{name}=="))


def lacking(pins: Iterable[Pin], folder: Path) -> list[Pin]:
    """The pins of which a folder holds no wheel and no source release, by the names of its files."""
    held = {release for path in folder.iterdir() if (release := _release(path.name)) is not None}
    return [pin for pin in pins if (_normal(pin.name), pin.version.lower()) not in held]


def _release(file: str) -> tuple[str, str] | None:
    """Name and version of a wheel or source archive; old archives have dashes and dots in their names."""
    if file.endswith(".whl"):
        name, version, *_ = [*file.split("-"), ""]
    elif file.endswith(".tar.gz"):
        name, _, version = file.removesuffix(".tar.gz").rpartition("-")
    else:
        return None
    return _normal(name), version.lower()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def place(lock: Path, name: str) -> str:
    """Where a lock pins a package: `file:line`, for errors; the file alone if it does not."""
    text = lock.read_text(encoding="utf-8")
    return f"{lock}:{line_of(text, name)}" if f"\n{name}==" in f"\n{text}" else str(lock)


def split(pins: Iterable[Pin], patterns: Sequence[str]) -> tuple[list[Pin], list[Pin]]:
    """Two lists: the packages whose name matches a pattern (the framework's layer), and the others."""
    framework: list[Pin] = []
    others: list[Pin] = []
    for pin in pins:
        (framework if any(fnmatch(pin.name, pattern) for pattern in patterns) else others).append(pin)
    return framework, others


def write(pins: Iterable[Pin], header: Sequence[str]) -> str:
    """The text of a lock file: comment lines, then the pins."""
    return "".join(f"# {line}\n" for line in header) + "".join(f"{pin.text}\n" for pin in pins)


def digest(*texts: str) -> str:
    """Identity of the locked packages: sha256 over pins in order, whatever the comments say."""
    joined = "\n".join(pin.text for text in texts for pin in parse(text))
    return hashlib.sha256(joined.encode()).hexdigest()
