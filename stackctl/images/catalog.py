"""The image matrix as typed data, read from images/catalog.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec

from stackctl import assets
from stackctl.errors import InvalidInput, did_you_mean
from stackctl.images import words
from stackctl.images.horovod import Horovod, Toolkit, check_horovod
from stackctl.images.schema import Base, Devel, Fabric, Family, Image, Tools, Variant, Wheels
from stackctl.images.tables import convert, known_keys, table
from stackrt.frameworks import OF_IMAGES

SCHEMA = 1

BASES_LOCK = "bases.toml"
"""File name below images/locks: the digests of base images. Absent as long as no registry has told one."""

PREFIX = "stack-"
"""What image names start with, unless STACK_IMAGE_PREFIX says otherwise (`registry.example/team/stack-`)."""


_START = re.compile(r"([A-Za-z0-9.-]+(:[0-9]+)?/)?([a-z0-9._-]+/)*[a-z0-9._-]*")
"""Of an image's name: a registry may have capitals, and nothing else."""


def prefix_of(env: Mapping[str, str]) -> str:
    """What image names start with.

    Raises:
        InvalidInput: No image's name starts so.
    """
    prefix = env.get("STACK_IMAGE_PREFIX", PREFIX)
    if not _START.fullmatch(prefix):
        said = "no image's name starts so: lower-case letters, digits, dots and dashes, and no https://"
        raise InvalidInput(said, where=f"STACK_IMAGE_PREFIX={prefix}", hint="as registry.example/team/stack-")
    return prefix


class Catalog(msgspec.Struct, frozen=True):
    """The whole matrix."""

    bases: dict[str, Base]
    tools: Tools
    fabric: Fabric
    devel: Devel
    images: dict[str, Image]
    horovod: Horovod | None = None
    wheels: Wheels = Wheels()


class Target(msgspec.Struct, frozen=True):
    """One image in one variant, with all that rendering, locking and building need of the catalog."""

    name: str
    variant_name: str
    image: Image
    variant: Variant
    base: Base
    tools: Tools
    devel: Devel
    fabric: Fabric
    horovod: Horovod | None = None
    """Set where the image holds Horovod."""
    prefix: str = PREFIX
    development: bool = False
    """Whether the image for development is meant: the same with compilers, debuggers and notebooks on top."""
    wheels: Wheels = Wheels()

    @property
    def key(self) -> str:
        """`pytorch-cpu`: the stem of this target's lock and Dockerfile."""
        return f"{self.name}-{self.variant_name}"

    @property
    def build_key(self) -> str:
        """`pytorch-cpu-devel` for the image for development, else the key."""
        return f"{self.key}-devel" if self.development else self.key

    @property
    def template(self) -> str:
        """File name below images/templates of what its Dockerfile is made from."""
        return self.horovod.template if self.horovod else self.image.template

    @property
    def apt(self) -> tuple[str, ...]:
        """Debian packages in the image."""
        mpi = self.horovod.mpi.apt if self.horovod and self.image.mpi else ()
        return (*self.image.apt, *mpi, *(self.fabric.apt if self.variant.cuda else ()))

    @property
    def toolkit(self) -> Toolkit | None:
        """What compiles for a GPU, where something is compiled for one."""
        if self.horovod is None or not self.variant.cuda:
            return None
        return self.horovod.cuda[self.variant.cuda.split(".")[0]]

    @property
    def sums(self) -> str:
        """File name, beside the locks, of what the resolver wrote into them."""
        return f"{self.key}.sums"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the catalog asks of the resolver."""
        horovod = (f"horovod=={self.horovod.version}",) if self.horovod else ()
        return (*self.variant.framework_packages, *self.image.packages, *horovod)

    @property
    def framework_package(self) -> str:
        """Name of the package that is the framework itself: the first of the variant's own."""
        return words.package(self.variant.framework_packages[0])

    @property
    def dockerfile(self) -> str:
        """File name below images/dockerfiles."""
        return f"{self.key}.Dockerfile"

    @property
    def tag(self) -> str:
        """The image's name.

        By default it has no slash, so that it can only mean this machine's image or one of Docker's own curated
        namespace: a missing image is never pulled from a stranger's.
        """
        return f"{self.prefix}{self.name}:{self.variant_name}" + ("-devel" if self.development else "")


def load(path: Path | None = None) -> Catalog:
    """Read and check a catalog.

    Raises:
        InvalidInput: The file is absent, is not TOML, or holds a key or value that has no meaning. The error
            names file and key.
    """
    path = path or assets.images_dir() / "catalog.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput("there is no such file", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not valid TOML: {error}", where=str(path)) from None
    catalog = parse(document, str(path))
    _check_templates(document, path)
    return _pinned(catalog, path.parent / "locks" / BASES_LOCK)


def parse(document: Mapping[str, Any], where: str) -> Catalog:
    """Turn a parsed document into a catalog; `where` is the file name that errors carry."""
    known_keys(
        document, ("schema", "bases", "tools", "fabric", "devel", "wheels", "horovod", "families", "images"), where
    )
    if document.get("schema") != SCHEMA:
        raise InvalidInput(f"must be {SCHEMA}, not {document.get('schema')!r}", where=f"{where}: schema")
    words.check(document, where)
    bases = {name: convert(row, Base, f"{where}: bases.{name}") for name, row in table(document, "bases", where)}
    tools = convert(document.get("tools", {}), Tools, f"{where}: tools")
    fabric = convert(document.get("fabric", {}), Fabric, f"{where}: fabric")
    devel = convert(document.get("devel", {}), Devel, f"{where}: devel")
    wheels = convert(document.get("wheels", {}), Wheels, f"{where}: wheels")
    horovod = convert(document["horovod"], Horovod, f"{where}: horovod") if "horovod" in document else None
    families = _families(document, where)
    images = {name: _image(row, families, where, name) for name, row in table(document, "images", where)}
    for name, image in images.items():
        if image.base not in bases:
            raise InvalidInput(
                f"no base is named {image.base!r}",
                where=f"{where}: images.{name}.base",
                hint=did_you_mean(image.base, bases),
            )
        if image.sources and not wheels.packages:
            raise InvalidInput(
                "the catalog has no table [wheels] that says what makes wheels of source archives",
                where=f"{where}: images.{name}.sources",
            )
        cudas = {row: variant.cuda for row, variant in image.variants.items()} if image.horovod else {}
        check_horovod(
            horovod,
            f"{where}: images.{name}",
            wanted=image.horovod,
            mpi=image.mpi,
            template=image.template,
            cudas=cudas,
        )
    return Catalog(bases=bases, tools=tools, fabric=fabric, devel=devel, images=images, horovod=horovod, wheels=wheels)


def targets(
    catalog: Catalog, name: str | None = None, variant: str | None = None, prefix: str = PREFIX
) -> list[Target]:
    """Every image x variant, narrowed by image and variant names.

    Raises:
        InvalidInput: No image, or no image's variant, has that name.
    """
    if name is not None and name not in catalog.images:
        raise InvalidInput(f"no image is named {name!r}", hint=did_you_mean(name, catalog.images))
    chosen = {name: catalog.images[name]} if name is not None else catalog.images
    known = {variant_name for image in chosen.values() for variant_name in image.variants}
    if variant is not None and variant not in known:
        of = f"image {name!r}" if name is not None else "any image"
        raise InvalidInput(f"no variant of {of} is named {variant!r}", hint=did_you_mean(variant, known))
    return [
        Target(
            image_name,
            variant_name,
            image,
            row,
            catalog.bases[image.base],
            catalog.tools,
            catalog.devel,
            catalog.fabric,
            catalog.horovod if image.horovod else None,
            prefix,
            wheels=catalog.wheels,
        )
        for image_name, image in chosen.items()
        for variant_name, row in image.variants.items()
        if variant in (None, variant_name)
    ]


def line_of(path: Path, target: Target, requirement: str) -> int:
    """The line of the catalog, counted from 1, that asks for a package on behalf of a target; 0 if there is none."""
    tables = (
        f"[images.{target.name}]",
        f"[images.{target.name}.variants.{target.variant_name}]",
        f"[families.{target.image.framework}]",
        "[horovod]",
        "[devel]",
        "[wheels]",
    )
    name, _, version = requirement.partition("==")
    within = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("["):
            within = line.strip()
        asked = f'"{requirement}"' in line or (within == "[horovod]" and name == "horovod" and f'"{version}"' in line)
        if within in tables and asked:
            return number
    return 0


def _pinned(catalog: Catalog, lock: Path) -> Catalog:
    """The catalog with the digests of its base images; one that was told of another image is passed over."""
    if not lock.exists():
        return catalog
    try:
        pins = msgspec.toml.decode(lock.read_text(encoding="utf-8"), type=dict[str, dict[str, str]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot be read: {error}", where=str(lock), hint="run `stackctl lock`") from None
    bases = {
        name: msgspec.structs.replace(base, digest=pins[name].get("digest", ""))
        if pins.get(name, {}).get("image") == base.image
        else base
        for name, base in catalog.bases.items()
    }
    return msgspec.structs.replace(catalog, bases=bases)


def _check_templates(document: Mapping[str, Any], path: Path) -> None:
    tables = {f"{kind}.{name}": row for kind in ("families", "images") for name, row in document.get(kind, {}).items()}
    for key, row in {"horovod": document.get("horovod", {}), **tables}.items():
        if "template" in row and not (template := path.parent / "templates" / row["template"]).exists():
            raise InvalidInput(
                f"there is no template {template.name!r}",
                where=f"{path}: {key}.template",
                hint=did_you_mean(template.name, [file.name for file in template.parent.glob("*.dockerfile.j2")]),
            )


def _families(document: Mapping[str, Any], where: str) -> dict[str, Family]:
    rows = dict(table(document, "families", where))
    for name in rows:
        if name not in OF_IMAGES:
            raise InvalidInput(
                f"no framework is named {name!r}", where=f"{where}: families.{name}", hint=did_you_mean(name, OF_IMAGES)
            )
    return {name: convert(row, Family, f"{where}: families.{name}") for name, row in rows.items()}


def _image(row: object, families: Mapping[str, Family], file: str, name: str) -> Image:
    where = f"{file}: images.{name}"
    if not isinstance(row, dict):
        raise InvalidInput("must be a table", where=where)
    variants = {key: convert(value, Variant, f"{where}.variants.{key}") for key, value in table(row, "variants", where)}
    if not variants:
        raise InvalidInput("an image needs at least one variant", where=f"{where}.variants")
    image = msgspec.structs.replace(convert({**row, "variants": {}}, Image, where), variants=variants)
    if image.framework not in families:
        raise InvalidInput(
            f"there is no table [families.{image.framework}] that says what its images share",
            where=f"{where}.framework",
        )
    family = families[image.framework]
    shared = (*map(words.package, family.packages), *family.compiler)
    for number, word in enumerate(image.without):
        if word not in shared:
            raise InvalidInput(
                f"[families.{image.framework}] has no {word!r} to leave out",
                where=f"{where}.without[{number}]",
                hint=did_you_mean(word, shared),
            )
    first, *_ = variants.values()
    for key, variant in variants.items():
        place = f"{where}.variants.{key}.framework_packages"
        names = [words.package(requirement) for requirement in variant.framework_packages]
        if not names or image.framework in names[1:]:
            raise InvalidInput("must name the framework's package first", where=place)
        layer = (*family.framework_layer, *image.framework_layer)
        if not any(fnmatch(names[0], pattern) for pattern in layer):
            raise InvalidInput(
                f"{names[0]!r} is none of the framework's layer, {', '.join(layer)}",
                where=f"{place}[0]",
                hint=f"name a package of it first, or add {names[0]!r} to framework_layer",
            )
        framework = {place: variant.framework_packages, f"{place}_if_offered": variant.framework_packages_if_offered}
        # What an image and its family both name is no conflict: the image's version is taken.
        words.one_version_each({**framework, f"{file}: families.{image.framework}.packages": family.packages})
        words.one_version_each({**framework, f"{where}.packages": image.packages})
        ours, others = (words.release(one.framework_packages[0]) for one in (variant, first))
        if ours != others:
            raise InvalidInput(
                f"{ours} is not the framework version of the other variant, {others}",
                where=f"{place}[0]",
                hint="the variants of an image have one framework version; another version is another image",
            )
    return image.with_family(family)
