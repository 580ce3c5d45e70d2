"""`stackctl images`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl import assets
from stackctl.cli.image_options import IMAGE
from stackctl.errors import MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env

if TYPE_CHECKING:
    from stackctl.engines.docker import ImageInfo
    from stackctl.images.matrix import Row


@click.command()
@IMAGE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def images(image: str | None, as_json: bool) -> None:
    """Show the image matrix.

    One line an image and variant: what the lock holds of frameworks, CUDA, cuDNN and NCCL, the oldest driver that will
    do, and the size if it is built here. Those on demand are built only when they are named. With IMAGE, all about it.
    """
    from stackctl.engines import docker
    from stackctl.images import matrix

    folder = assets.images_dir()
    targets = catalog.targets(catalog.load(), image, prefix=from_env(os.environ).image_prefix)
    rows = [matrix.row(target, folder) for target in targets]
    try:
        docker.require()
        built = docker.images([row.tag for row in rows])
        rows = [_with_engine(row, built.get(row.tag)) for row in rows]
    except MissingHere as error:
        click.echo(f"note: {error.message}; cannot tell what is built", err=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    blocks = [matrix.table(rows)] if image is None else [matrix.details(row) for row in rows]
    click.echo("\n\n".join("\n".join(lines) for lines in blocks))


def _with_engine(row: Row, info: ImageInfo | None) -> Row:
    if info is None:
        return msgspec.structs.replace(row, built=False)
    return msgspec.structs.replace(row, built=True, size=info.size, digest=info.id, created=info.created)
