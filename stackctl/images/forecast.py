"""What builds will take, said before they start: bytes to download, room on the engine's disk. Asks no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from stackctl import assets
from stackctl.engines import docker
from stackctl.images import lock_list, lockfile, render, sums
from stackctl.images.catalog import Target
from stackctl.images.settings import Settings
from stackrt.contract import LOCK_LABEL

BESIDE = 8.0
"""Disk beside an image for each byte of a wheel that is not the framework's: it unpacks to some four times its size, in
uv's cache and, where it only serves the build, in a stage as well."""


class Forecast(msgspec.Struct, frozen=True):
    """What one build may take.

    `files` are the packages to download, `name==version` -> bytes, None where nobody knows. `layers` are what it adds
    to the engine's disk, identity -> bytes: images of one framework share its layer.
    """

    tag: str
    files: dict[str, int | None]
    layers: dict[str, float]

    def __str__(self) -> str:
        """One line for the person who waits."""
        return f"{self.tag}: {_download(self.files)}, {_room(self.layers)}"


def forecast(targets: Sequence[Target], settings: Settings) -> list[Forecast]:
    """What the builds of some images may take; none for an image that was built from its locks as they are.

    What is in the builder's cache is not downloaded again, but nobody can ask it: hence "up to".
    """
    built = docker.images([target.tag for target in targets])
    images = assets.images_dir()
    return [
        _of_one(target, settings)
        for target in targets
        if target.tag not in built
        or built[target.tag].labels.get(LOCK_LABEL) != render.labels(target, images)[LOCK_LABEL]
    ]


def in_all(rows: Sequence[Forecast], free: int | None) -> list[str]:
    """What several builds take together, all that several want counted once; and a note where the disk is short."""
    lines = []
    layers = {name: size for row in rows for name, size in row.layers.items()}
    if len(rows) > 1:
        files = {name: size for row in rows for name, size in row.files.items()}
        lines.append(f"in all: {_download(files)}, {_room(layers)}")
    if free is not None and free < sum(layers.values()):
        lines.append(
            f"note: the engine's disk has {free / 1e9:.1f} GB free, which may not be enough; "
            "`docker system df` shows what takes room"
        )
    return lines


def _of_one(target: Target, settings: Settings) -> Forecast:
    folder = assets.images_dir() / "locks"
    texts = {name: lock_list.read(folder / name, target) for name in lock_list.fetched(target)}
    noted = "".join((folder / name).read_text(encoding="utf-8") for name in (target.sums, "tools.sums"))
    known = sums.sizes(noted)
    pins = {name: lockfile.parse(text) for name, text in texts.items()}
    wanted = [] if settings.offline else [pin for some in pins.values() for pin in some]
    if settings.wheelhouse:
        wanted = lockfile.lacking(wanted, settings.wheelhouse)
    files = {f"{pin.name}=={pin.version}": known.get(pin.digest) for pin in wanted}
    sizes = {name: sum(known.get(pin.digest, 0) for pin in some) for name, some in pins.items()}
    layer = lock_list.lock_of(target, "framework").file
    framework, rest = sizes[layer], sizes[lock_list.lock_of(target, "packages").file]
    # Wheels unpack to about the same multiple, so an image's size divides as they do.
    share = framework / (framework + rest) if framework else 0.0
    room = target.variant.budget_gb * 1e9
    own = room * (1 - share) + (sum(sizes.values()) - framework) * BESIDE
    layers = {lockfile.digest(texts[layer]): room * share, target.key: own}
    return Forecast(target.tag, files, layers)


def _room(layers: Mapping[str, float]) -> str:
    return f"up to {sum(layers.values()) / 1e9:.1f} GB of disk"


def _download(files: Mapping[str, int | None]) -> str:
    if not files:
        return "no packages to download"
    known = sum(size or 0 for size in files.values())
    size = f"{known / 1e9:.1f} GB" if known >= 1e9 else f"{known / 1e6:.0f} MB"
    unknown = sum(size is None for size in files.values())
    return f"up to {size} of packages to download" + (f" and {unknown} files of unknown size" if unknown else "")
