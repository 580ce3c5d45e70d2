"""What the resolver wrote into an image's locks, a line a package: an edit by hand is found, and named. Pure.

The size of each package's file is beside it, so that a build can say what it will download without asking an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

from stackctl.images import lockfile

HEADER = (
    "# What `stackctl lock` wrote: file, package, digest of its lines, bytes to download. "
    "`stackctl lock --check` compares.\n"
)

UNKNOWN = "?"


class Edit(msgspec.Struct, frozen=True):
    """A package of a lock that is not as the resolver wrote it; `line` counts from 1."""

    file: str
    line: int
    message: str


def text(locks: Mapping[str, str], sizes: Mapping[str, int] = MappingProxyType({})) -> str:
    """The sums of locks, given as file name -> text; `sizes` is digest of a package's lines -> bytes of its file."""
    return HEADER + "".join(
        f"{file} {pin.name}=={pin.version} {pin.digest} {sizes.get(pin.digest, UNKNOWN)}\n"
        for file, lock in locks.items()
        for pin in lockfile.parse(lock)
    )


def sizes(sums: str) -> dict[str, int]:
    """Digest of a package's lines -> bytes of its file, where they are known."""
    return {digest: int(size) for *_, digest, size in _rows(sums) if size != UNKNOWN}


def releases(sums: str) -> dict[str, int]:
    """`numpy==2.4.5` -> bytes of the file that was chosen of it, where they are known."""
    return {f"{name}=={version}": int(size) for _, name, version, _, size in _rows(sums) if size != UNKNOWN}


def versions(sums: str, *files: str) -> dict[str, str]:
    """Package -> version as the resolver wrote it, over some of the locks."""
    return {name: version for file, name, version, *_ in _rows(sums) if file in files}


def written(sums: str, locks: Mapping[str, str]) -> dict[str, str]:
    """Package -> its lines as the resolver wrote them, over locks given as file name -> text.

    Of a package that was edited since only `name==version` is known, without the hashes.
    """
    pins = {(file, pin.name): pin for file, lock in locks.items() for pin in lockfile.parse(lock)}
    found = {}
    for file, name, version, digest, _ in _rows(sums):
        if file in locks:
            pin = pins.get((file, name))
            found[name] = pin.text if pin and pin.digest == digest else f"{name}=={version}"
    return found


def edits(sums: str, locks: Mapping[str, str]) -> list[Edit]:
    """Where locks, given as file name -> text, differ from what the resolver wrote."""
    expected = {(file, name): (version, digest) for file, name, version, digest, _ in _rows(sums)}
    found = []
    for file, lock in locks.items():
        pins = {pin.name: pin for pin in lockfile.parse(lock)}
        for pin in pins.values():
            version, digest = expected.get((file, pin.name), ("", ""))
            if digest == pin.digest:
                continue
            said = f"{pin.name}=={version}, and the lock has {pin.version}" if version else f"no {pin.name}"
            if version == pin.version:
                said = f"other hashes for {pin.name}=={version}"
            found.append(Edit(file, lockfile.line_of(lock, pin.name), f"the resolver wrote {said}"))
        gone = [f"{name}=={row[0]}" for (of, name), row in expected.items() if of == file and name not in pins]
        if gone:
            found.append(Edit(file, 1, f"the resolver wrote {', '.join(gone)}, and the lock has it no more"))
    return found


def _rows(sums: str) -> Iterator[tuple[str, str, str, str, str]]:
    for line in sums.splitlines():
        words = line.split()
        if len(words) == 4 and words[0] != "#":
            name, _, version = words[1].partition("==")
            yield words[0], name, version, words[2], words[3]
