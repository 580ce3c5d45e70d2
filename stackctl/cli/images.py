"""`stackctl images`."""

from __future__ import annotations

import os

import click
import msgspec

from stackctl import assets
from stackctl.errors import MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def images(as_json: bool) -> None:
    """Show the image matrix.

    One line an image and variant: the framework's version, CUDA, Python, base, and whether it is built here. Those on
    demand are built only when they are named.
    """
    from stackctl.engines import docker
    from stackctl.images import render

    rows = []
    folder = assets.images_dir()
    try:
        docker.require()
        engine = True
    except MissingHere as error:
        engine = False
        click.echo(f"note: {error.message}; cannot tell what is built", err=True)
    for target in catalog.targets(catalog.load(), prefix=from_env(os.environ).image_prefix):
        versions = render.framework_versions(target, folder)
        info = docker.image(target.tag) if engine else None
        rows.append(
            {
                "image": target.name,
                "variant": target.variant_name,
                "tag": target.tag,
                "framework": ", ".join(f"{name} {version}" for name, version in versions.items()),
                "cuda": target.variant.cuda,
                "minimum_driver": target.variant.minimum_driver,
                "python": target.base.python,
                "base": target.base.image,
                "default": target.image.default,
                "built": None if not engine else info is not None,
                "size": info.size if info else None,
                "digest": info.id if info else None,
            }
        )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    table = [("IMAGE", "FRAMEWORK", "CUDA", "PYTHON", "BASE", "BUILT")]
    for row in rows:
        size = f"{row['size'] / 1e9:.2f} GB" if isinstance(row["size"], int) else "?" if not engine else "no"
        if size == "no" and not row["default"]:
            size = "on demand"
        cells = (row["tag"], row["framework"], row["cuda"] or "-", row["python"], row["base"], size)
        table.append(tuple(str(cell) for cell in cells))  # type: ignore[arg-type]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
