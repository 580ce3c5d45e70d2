"""What the tables of images/catalog.toml hold, as types."""

from __future__ import annotations

from typing import Annotated

import msgspec

from stackctl.images import words


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution image that ours start from, and the Python in it."""

    image: str
    python: str
    wheel_platform: str
    digest: str = ""
    """Of its manifest, `sha256:…`, where a registry has told it (images/locks/bases.toml)."""

    @property
    def pinned(self) -> str:
        """The image with its digest if that is known: `debian:bookworm-slim@sha256:…`."""
        return f"{self.image}@{self.digest}" if self.digest else self.image


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs between the CPU and CUDA forms of an image."""

    framework_packages: tuple[str, ...]
    budget_gb: Annotated[float, msgspec.Meta(gt=0, lt=1e6)]
    """The most that the built image may take, uncompressed, in 10^9 bytes; `stackctl validate` holds it."""
    framework_packages_if_offered: tuple[str, ...] = ()
    """More of them, which `stackctl lock` leaves out, and says so, where the framework's index does not have them."""
    index: str = ""
    """Package index of the framework's own packages, where it is not the default one."""
    cuda: str = ""
    minimum_driver: str = ""
    """The oldest NVIDIA driver that this CUDA runs on, such as `580`."""
    gpu_architectures: tuple[str, ...] = ()
    """Compute capabilities that the framework's own kernels are compiled for, such as `9.0`."""
    devel_packages: tuple[str, ...] = ()
    """What the image for development has more in this variant, as CUDA's compiler."""
    leave_out: tuple[str, ...] = ()
    """Packages that others ask for and that this variant replaces, as `tensorflow` where it has `tensorflow-cpu`."""


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the images of one framework share."""

    template: str
    apt: tuple[str, ...]
    packages: tuple[str, ...]
    framework_layer: tuple[str, ...]
    """Names, with `*`, of the packages that get a layer of their own, below the others."""
    compiler: tuple[str, ...] = ()
    """Debian packages that only programs of the framework call: installed while its wheels are."""
    sources: tuple[str, ...] = ()
    """Names of packages in plain Python that exist only as source archives: a stage of the build makes their wheels."""


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One image with its variants: what differs from its framework's family, and in a catalog that is read, all."""

    summary: str
    framework: str
    base: str
    variants: dict[str, Variant]
    template: str = ""
    apt: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    framework_layer: tuple[str, ...] = ()
    compiler: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """What of its family's `packages` and `compiler` it has no use for, by name."""
    sources: tuple[str, ...] = ()
    horovod: bool = False
    """Whether Horovod is compiled against the framework and installed."""
    mpi: bool = False
    """Whether Horovod has MPI beside Gloo, and the image Open MPI."""
    default: bool = True
    """Whether `stackctl build` without an image's name builds it."""

    @property
    def launcher(self) -> str:
        """What ranks of this image expect of the launcher (STACK_FRAMEWORK), unless a job says otherwise."""
        return "horovod" if self.horovod else self.framework

    def with_family(self, family: Family) -> Image:
        """The image with its family's lists before its own; of a package that both name, it has its own version."""
        shared = [requirement for requirement in family.packages if words.package(requirement) not in self.without]
        packages = {words.package(requirement): requirement for requirement in (*shared, *self.packages)}
        compiler = tuple(name for name in family.compiler if name not in self.without)
        family = msgspec.structs.replace(family, compiler=compiler)
        lists = {
            key: tuple(dict.fromkeys((*getattr(family, key), *getattr(self, key))))
            for key in ("apt", "framework_layer", "compiler", "sources")
        }
        template = self.template or family.template
        return msgspec.structs.replace(self, template=template, packages=tuple(packages.values()), **lists)


class Tools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Programs that a build uses and leaves behind."""

    uv: str


class Wheels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes wheels of source archives, in a stage of a build; none of it stays."""

    packages: tuple[str, ...] = ()


class Devel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the image for development has on top of every image."""

    apt: tuple[str, ...]
    packages: tuple[str, ...]


class Fabric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every CUDA image has for the network between nodes."""

    apt: tuple[str, ...] = ()
