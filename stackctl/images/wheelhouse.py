"""Collect all that a build fetches into a folder: wheels, Debian packages, the base image. And build from it alone."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import msgspec

from stackctl import assets
from stackctl.engines import docker
from stackctl.engines.download import Downloader, File, sha256
from stackctl.engines.file_lock import held
from stackctl.errors import MissingHere
from stackctl.images import lock_list, lockfile, sources
from stackctl.images.catalog import Target
from stackctl.images.context import build_context
from stackctl.images.settings import Settings, base_image

IGNORED = "# Beside the wheels: a build takes these in other ways.\ndebs\nbases\n"
"""`.dockerignore` of a wheelhouse, so that the wheels' build context does not carry the rest."""

DEVEL_STAGE = "\nFROM runtime AS devel\n"
"""Where a Dockerfile goes on to what only the image for development has."""

_LIST = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS listing
ARG APT_MIRROR=""
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.pem \\
    --mount=type=bind,source=images/build/apt-install,target=/run/apt-install \\
    /run/apt-install --list /listing PACKAGES
FROM scratch
COPY --from=listing /listing /
"""


class Lacking(msgspec.Struct, frozen=True):
    """A file to fetch, and the folder it is for."""

    file: File
    folder: Path


def debs(target: Target, house: Path) -> Path:
    """Where a wheelhouse keeps the Debian packages of an image: what its build installs, on its base as it is."""
    return house / "debs" / target.build_key


def base(target: Target, house: Path) -> Path:
    """Where a wheelhouse keeps the base image."""
    return house / "bases" / (re.sub(r"[^\w.-]+", "_", target.base.image) + ".tar")


def collect_wheels(target: Target, settings: Settings, house: Path) -> list[Lacking]:
    """The files of an image's locks that are not in the folder yet with the right hash."""
    return _lacking(sources.files(target, settings, assets.images_dir()), settings, house)


def collect_debs(target: Target, settings: Settings, house: Path) -> list[Lacking]:
    """The Debian packages of an image that are not in the folder yet, as apt in its base image asks for them.

    Writes the folder's index, and removes packages that it does not name any more.

    Raises:
        CommandFailed: The base image or the Debian mirror cannot be had.
    """
    images = assets.images_dir()
    recipe_text = (images / "dockerfiles" / target.dockerfile).read_text(encoding="utf-8")
    packages = apt_packages(recipe_text if target.development else recipe_text.partition(DEVEL_STAGE)[0])
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder, "Dockerfile")
        recipe.write_text(_LIST.replace("PACKAGES", " ".join(packages)), encoding="utf-8")
        argv = ["docker", "buildx", "build", "--quiet", "--no-cache", "--file", str(recipe)]
        argv += [
            "--output",
            f"type=local,dest={folder}/out",
            "--build-arg",
            f"BASE_IMAGE={base_image(target, settings)}",
        ]
        if settings.ca_bundle:
            argv += ["--secret", f"id=ca,src={settings.ca_bundle}"]
        if settings.apt_mirror:
            argv += ["--build-arg", f"APT_MIRROR={settings.apt_mirror}"]
        for key in settings.proxies:
            argv += ["--build-arg", key]
        docker.run_quietly([*argv, str(build_context())], hint="STACK_BASE_REGISTRY and STACK_APT_MIRROR")
        found = debian_files(Path(folder, "out", "uris").read_text(encoding="utf-8"))
        index = Path(folder, "out", "Packages").read_text(encoding="utf-8")
    place = debs(target, house)
    place.mkdir(parents=True, exist_ok=True)
    names = {file.name for file in found}
    for path in place.glob("*.deb"):
        if path.name not in names:
            path.unlink()
    _write(place / "Packages", local_index(index, found))
    lacking = [Lacking(file, place) for file in found if not _holds(place, file) and not _borrow(file, place)]
    return lacking + _lacking(unpacked(target, mirror(found)), settings, house)


def collect_base(target: Target, settings: Settings, house: Path) -> Path | None:
    """Save the base image into the folder; None if it is there already."""
    path = base(target, house)
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    name = base_image(target, settings)
    if docker.image(name) is None:
        docker.pull(name)
    part = path.with_name(f".{path.name}.part")
    carried = f"stackctl-base:{os.getpid()}"
    docker.tag(name, carried)  # an archive keeps no digest, and a name that has one would be lost
    try:
        docker.save(carried, part)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
        docker.untag(carried)
    return path


def fetch(rows: Sequence[Lacking], downloader: Downloader, done: Callable[[File], None]) -> None:
    """Fetch what is lacking.

    Raises:
        MissingHere: The disk has no room for it; nothing was fetched then.
        JobFailed: A file cannot be had, or has another hash.
    """
    for folder in sorted({row.folder for row in rows}):
        files = [row.file for row in rows if row.folder == folder]
        need = sum(file.size or 0 for file in files)
        free = shutil.disk_usage(folder).free
        if need > free:
            raise MissingHere(
                f"the disk has {free / 1e9:.1f} GB free, and {need / 1e9:.1f} GB are to be fetched", where=str(folder)
            )
        downloader.fetch_all(files, folder, done)


def check(target: Target, house: Path) -> None:
    """See that a wheelhouse holds what an offline build of an image needs, by the files' names.

    Raises:
        MissingHere: It does not; says what is lacking.
    """
    images = assets.images_dir()
    texts = [lock_list.read(images / "locks" / name, target) for name in lock_list.fetched(target)]
    pins = [pin for text in texts for pin in lockfile.parse(text)]
    lacking = [f"{pin.name} {pin.version}" for pin in lockfile.lacking(pins, house)]
    lacking += [file.name for file in unpacked(target) if not (house / file.name).exists()]
    if not (debs(target, house) / "Packages").exists():
        lacking.append("the Debian packages")
    if lacking:
        shown = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise MissingHere(
            f"lacks {shown} of {target.key}",
            where=str(house),
            hint=f"where there is a network: `stackctl wheelhouse {target.name} DIR --variant {target.variant_name}"
            + (" --devel`" if target.development else "`"),
        )


def load_base(target: Target, settings: Settings, house: Path) -> None:
    """Give the engine the base image of the wheelhouse, unless it has one of that name.

    Raises:
        MissingHere: Neither has it.
    """
    name = base_image(target, settings)
    if docker.image(name) is not None:
        return
    path = base(target, house)
    if not path.exists():
        raise MissingHere(
            f"the engine has no base image {name}, nor has the wheelhouse", where=str(path), hint="see docs/images.md"
        )
    with held(path.parent, lambda: None):  # another build would take the name away
        carried = docker.load(path)
        docker.tag(carried, name)
        docker.untag(carried)


def unpacked(target: Target, mirror: str = "") -> list[File]:
    """The Debian packages that a build unpacks and does not install: nvcc, where no wheel has it.

    Args:
        mirror: Where to fetch them from; not needed for their names.
    """
    package = target.toolkit.debian if target.toolkit else None
    if package is None:
        return []
    where = f"images/catalog.toml: horovod.cuda.{target.variant.cuda.split('.')[0]}.debian"
    return [File(package.path.rpartition("/")[2], f"{mirror}/{package.path}", None, (package.sha256,), where)]


def apt_packages(dockerfile: str) -> list[str]:
    """The Debian packages that the stages of a Dockerfile install, as they stand behind `apt-install`."""
    text = dockerfile.replace("\\\n", " ")
    found = re.findall(r"/run/apt-install(?: --apart /\S+)?((?:[ \n]+[a-z0-9][a-z0-9.+-]+)+)", text)
    return sorted({word for words in found for word in words.split()})


def debian_files(uris: str) -> list[File]:
    """The files of `apt-get --print-uris` with SHA256 forced: `'URL' NAME SIZE SHA256:HEX` a line.

    They get the names of the archive, which hold no `:` of an epoch: apt would take its escape for the sign itself.
    """
    rows = re.findall(r"^'(\S+)' \S+ (\d+) SHA256:([0-9a-f]{64})$", uris, re.MULTILINE)
    return [
        File(unquote(url.rpartition("/")[2]), url, int(size), (digest,), "Debian's index") for url, size, digest in rows
    ]


def mirror(files: Sequence[File]) -> str:
    """The mirror that apt asked for Debian packages: the base image's, or STACK_APT_MIRROR. Security's is another."""
    roots = (file.url.partition("/pool/")[0] for file in files)
    return next((root for root in roots if not root.endswith("-security")), "")


def local_index(index: str, files: Sequence[File]) -> str:
    """A `Packages` index of a folder that holds the files themselves.

    Source: https://wiki.debian.org/DebianRepository/Format#A.22Packages.22_Indices
    """
    names = {digest: file.name for file in files for digest in file.sha256}
    kept = []
    for paragraph in index.strip().split("\n\n"):
        digest = re.search(r"^SHA256: ([0-9a-f]{64})$", paragraph, re.MULTILINE)
        if digest and digest[1] in names:
            kept.append(re.sub(r"^Filename: .*$", f"Filename: ./{names[digest[1]]}", paragraph, flags=re.MULTILINE))
    return "\n\n".join(kept) + "\n"


def prepare(house: Path) -> None:
    """Make the folder, and what keeps the wheels' build context small."""
    house.mkdir(parents=True, exist_ok=True)
    if not (house / ".dockerignore").exists():
        _write(house / ".dockerignore", IGNORED)


def _lacking(files: Sequence[File], settings: Settings, house: Path) -> list[Lacking]:
    wanted = [file for file in files if not _holds(house, file)]
    return [Lacking(file, house) for file in sources.with_sizes(wanted, sources.downloader(settings))]


def _holds(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.exists() and sha256(path) in file.sha256


def _borrow(file: File, place: Path) -> bool:
    """Link a package that another image's folder has: the same file takes room once."""
    for folder in place.parent.iterdir():
        if _holds(folder, file):
            (place / file.name).unlink(missing_ok=True)
            os.link(folder / file.name, place / file.name)
            return True
    return False


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)
