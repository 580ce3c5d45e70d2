"""`stackctl wheelhouse`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl.cli import complete
from stackctl.cli.image_options import VARIANT
from stackctl.images import catalog
from stackctl.images.catalog import Target
from stackctl.images.settings import Settings, from_env

if TYPE_CHECKING:  # the client for downloads is not needed for --help
    from stackctl.engines.download import File


@click.command()
@click.argument("image", shell_complete=complete.images)
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@VARIANT
@click.option("--devel", is_flag=True, help="Also what the image for development has on top.")
@click.option("--wheels-only", is_flag=True, help="Leave out Debian's packages and the base image; needs no Docker.")
def wheelhouse(image: str, folder: Path, variant: str | None, devel: bool, wheels_only: bool) -> None:
    """Collect all that a build fetches into a folder.

    That is the wheels of IMAGE's locks, hashes checked, Debian's packages, and the base image. A file that is
    there with the right hash is kept, so a second call goes on where the first one stopped. One DIR can hold several
    images. With it `stackctl build IMAGE --wheelhouse DIR --offline` needs no network.

    \b
    Examples:
      stackctl wheelhouse pytorch wheels --variant cpu
      stackctl build pytorch --variant cpu --wheelhouse wheels --offline
    """
    from stackctl.engines import docker
    from stackctl.engines.file_lock import held
    from stackctl.images import wheelhouse as house

    settings = from_env(os.environ)
    targets = catalog.targets(catalog.load(), image, variant, settings.image_prefix)
    if devel:
        targets = [msgspec.structs.replace(target, development=True) for target in targets]
    if not wheels_only:
        docker.require("buildx")
    house.prepare(folder)
    with held(folder, lambda: click.echo(f"waiting for another stackctl that fills {folder}", err=True)):
        for target in targets:
            _collect(target, settings, folder, wheels_only=wheels_only)


def _collect(target: Target, settings: Settings, folder: Path, *, wheels_only: bool) -> None:
    from stackctl.images import sources
    from stackctl.images import wheelhouse as house

    rows = house.collect_wheels(target, settings, folder)
    if not wheels_only:
        rows += house.collect_debs(target, settings, folder)
    total = sum(row.file.size or 0 for row in rows)
    click.echo(f"{target.key}: {len(rows)} files to fetch, {total / 1e6:,.0f} MB", err=True)
    told = 0

    def done(file: File) -> None:
        nonlocal told
        told += 1
        click.echo(f"  {told:3}/{len(rows)}  {(file.size or 0) / 1e6:8.1f} MB  {file.name}", err=True)

    house.fetch(rows, sources.downloader(settings), done)
    if not wheels_only and house.collect_base(target, settings, folder):
        click.echo(f"  saved  {target.base.image}", err=True)
    click.echo(f"{target.key}: complete in {folder}")
