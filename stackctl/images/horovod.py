"""How Horovod is compiled, as the catalog says it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stackctl.errors import InvalidInput


class DebianFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A Debian package that is unpacked and not installed: its path below a mirror, and its digest."""

    path: str
    sha256: str


class Toolkit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """CUDA's compiler and headers, for the stage that compiles; none of it stays."""

    packages: tuple[str, ...]
    debian: DebianFile | None = None
    """What no wheel has."""


class Mpi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Debian packages of Open MPI: to compile with, and to run with."""

    build_apt: tuple[str, ...]
    apt: tuple[str, ...]


class Horovod(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Horovod is compiled: its release, and what the stage that compiles it needs; none of that stays."""

    version: str
    apt: tuple[str, ...]
    packages: tuple[str, ...]
    template: str
    """On top of the framework's own."""
    mpi: Mpi
    cuda: dict[str, Toolkit]
    """Toolkits by CUDA's major version."""


def check_horovod(
    horovod: Horovod | None, where: str, *, wanted: bool, mpi: bool, template: str, cudas: Mapping[str, str]
) -> None:
    """See that the catalog says how to compile Horovod for an image.

    Args:
        horovod: The catalog's table, if it has one.
        where: The image, for errors.
        wanted: Whether the image has Horovod.
        mpi: Whether it has MPI.
        template: The template that Horovod's is put on top of.
        cudas: Variant -> its CUDA; empty for a CPU variant.

    Raises:
        InvalidInput: It does not.
    """
    if mpi and not wanted:
        raise InvalidInput("MPI is Horovod's: the image has `horovod = true` as well", where=f"{where}.mpi")
    if wanted and horovod is None:
        raise InvalidInput("the catalog has no table [horovod] that says how to compile it", where=f"{where}.horovod")
    if horovod and template == horovod.template:
        raise InvalidInput(
            "is what comes on top of a framework's template", where=f"{where}.template", hint="leave it out"
        )
    for name, cuda in cudas.items():
        major = cuda.split(".")[0]
        if horovod and major and major not in horovod.cuda:
            raise InvalidInput(
                f"there is no table [horovod.cuda.{major}] that says what compiles for CUDA {major}",
                where=f"{where}.variants.{name}.cuda",
            )
