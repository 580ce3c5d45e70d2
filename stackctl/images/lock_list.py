"""The locks of an image: which there are, what each asks of the resolver, and what they hold. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from stackctl.errors import InvalidInput
from stackctl.images import lockfile
from stackctl.images.catalog import Target
from stackctl.images.lockfile import Pin

Kind = Literal["framework", "packages", "horovod", "builder", "toolkit", "sources", "wheels", "devel"]

TOOLS = "tools.txt"
"""File name, beside the locks of the images, of the lock of what a build uses and leaves behind."""


class Lock(msgspec.Struct, frozen=True):
    """One hashed requirements file of an image, a layer or a stage of its build."""

    file: str
    """Its name below images/locks."""
    kind: Kind
    """The framework's own layer; all other packages; Horovod's source release; what compiles it, beside the framework's
    layer; CUDA's compiler and headers, for that; source archives that become wheels; what makes them; what the image
    for development has on top."""
    requirements: tuple[str, ...]
    """What the catalog asks of the resolver for it."""
    installed: bool = False
    """Whether its packages are in the image."""


def locks_of(target: Target) -> tuple[Lock, ...]:
    """All locks of an image in a variant, from what changes rarely to what changes often."""
    framework = target.variant.framework_packages
    locks = [
        Lock(f"{target.key}.framework.txt", "framework", framework, installed=True),
        Lock(f"{target.key}.txt", "packages", target.requirements, installed=True),
    ]
    if target.horovod:
        compiling = (*framework, f"horovod=={target.horovod.version}", *target.horovod.packages)
        locks.append(Lock(f"{target.key}.horovod.txt", "horovod", compiling, installed=True))
        locks.append(Lock(f"{target.key}.builder.txt", "builder", compiling))
    if target.toolkit:
        locks.append(Lock(f"{target.key}.toolkit.txt", "toolkit", target.toolkit.packages))
    if target.image.sources:
        locks.append(Lock(f"{target.key}.sources.txt", "sources", target.image.sources, installed=True))
        locks.append(Lock(f"{target.key}.wheels.txt", "wheels", target.wheels.packages))
    developing = (*target.devel.packages, *target.variant.devel_packages)
    return (*locks, Lock(f"{target.key}.devel.txt", "devel", developing))


def lock_of(target: Target, kind: Kind) -> Lock:
    """The one lock of a kind that an image has."""
    return next(lock for lock in locks_of(target) if lock.kind == kind)


def fetched(target: Target) -> list[str]:
    """File names of the locks that a build fetches: its own, and that of the tools it leaves behind."""
    locks = locks_of(target)
    return [*(lock.file for lock in locks if target.development or lock.kind != "devel"), TOOLS]


def pins_of(target: Target, images: Path, kind: Kind | None = None) -> list[Pin]:
    """The packages of one of an image's locks; without a kind, of all whose packages are in the image.

    Raises:
        InvalidInput: A lock is absent.
    """
    locks = (lock for lock in locks_of(target) if (lock.kind == kind if kind else lock.installed))
    return [pin for lock in locks for pin in lockfile.parse(read(images / "locks" / lock.file, target))]


def read(path: Path, target: Target) -> str:
    """The text of a lock.

    Raises:
        InvalidInput: There is none yet.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(
            f"{target.name} ({target.variant_name}) has no lock",
            where=str(path),
            hint=f"make it with `stackctl lock {target.name}`",
        ) from None
