"""What builds will take, said before they start: bytes to download, room on the engine's disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from stackctl import assets
from stackctl.engines import docker
from stackctl.engines.download import File
from stackctl.errors import StackError
from stackctl.images import render, sources
from stackctl.images.catalog import Target
from stackctl.images.settings import Settings

ROOM = 2.0
"""Disk that a build from nothing takes, over the image's size: the image, and the unpacked wheels in uv's cache."""


class Forecast(msgspec.Struct, frozen=True):
    """What one build may take: the files to download, or why nobody can say; bytes on the engine's disk."""

    tag: str
    files: tuple[File, ...]
    unknown: str
    room: float

    def __str__(self) -> str:
        """One line for the person who waits."""
        room = f"up to {self.room / 1e9:.1f} GB of disk"
        if self.unknown:
            return f"{self.tag}: size of the download unknown ({self.unknown}), {room}"
        return f"{self.tag}: {_download(self.files)}, {room}"


def forecast(targets: Sequence[Target], settings: Settings) -> list[Forecast]:
    """What the builds of some images may take; none for an image that was built from its locks as they are.

    What is in the builder's cache is not downloaded again, but nobody can ask it: hence "up to".
    """
    built = docker.images([target.tag for target in targets])
    images = assets.images_dir()
    fresh = [
        target
        for target in targets
        if target.tag not in built
        or built[target.tag].labels.get("io.stackctl.lock") != render.labels(target, images)["io.stackctl.lock"]
    ]
    with ThreadPoolExecutor(2) as pool:  # each asks for all its locks at once
        return list(pool.map(lambda target: _of_one(target, settings), fresh))


def in_all(rows: Sequence[Forecast], free: int | None) -> list[str]:
    """What several builds take together, a file that several want counted once; and a note where the disk is short."""
    lines = []
    room = sum(row.room for row in rows)
    if len(rows) > 1:
        files = {file.name: file for row in rows for file in row.files}
        lines.append(f"in all: {_download(tuple(files.values()))}, up to {room / 1e9:.1f} GB of disk")
    if free is not None and free < room:
        lines.append(
            f"note: the engine's disk has {free / 1e9:.1f} GB free, which may not be enough; "
            "`docker system df` shows what takes room"
        )
    return lines


def _of_one(target: Target, settings: Settings) -> Forecast:
    room = target.variant.budget_gb * 1e9 * ROOM
    if settings.offline:
        return Forecast(target.tag, (), "", room)
    try:
        found = sources.files(target, settings, assets.images_dir(), patient=False)
        wanted = [file for file in found if not file.url.startswith("file:")]
        return Forecast(target.tag, tuple(sources.with_sizes(wanted, sources.downloader(settings))), "", room)
    except StackError as error:
        return Forecast(target.tag, (), error.message.splitlines()[0], room)


def _download(files: Sequence[File]) -> str:
    if not files:
        return "no packages to download"
    known = sum(file.size or 0 for file in files)
    size = f"{known / 1e9:.1f} GB" if known >= 1e9 else f"{known / 1e6:.0f} MB"
    unknown = sum(file.size is None for file in files)
    return f"up to {size} of packages to download" + (f" and {unknown} files of unknown size" if unknown else "")
