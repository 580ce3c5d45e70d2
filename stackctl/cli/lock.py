"""`stackctl lock`."""

from __future__ import annotations

import os

import click

from stackctl import assets
from stackctl.cli.matrix import IMAGE, VARIANT, need_checkout
from stackctl.images import catalog
from stackctl.images.settings import from_env


@click.command()
@IMAGE
@VARIANT
@click.option("--check", is_flag=True, help="Write nothing; fail if a lock does not answer to the catalog.")
def lock(image: str | None, variant: str | None, check: bool) -> None:
    """Resolve an image's packages into hashed locks.

    Needs uv and a package index. Versions come from images/catalog.toml.

    \b
    Examples:
      stackctl lock pytorch
      stackctl lock --check
    """
    from stackctl.images import lock as locks

    rows = catalog.load()
    chosen = catalog.targets(rows, image, variant)
    folder = assets.images_dir()
    if check:
        locks.check_tools(rows.tools, folder)
        for target in chosen:
            locks.check(target, folder)
        return
    need_checkout()
    settings = from_env(os.environ)
    texts: dict[str, str] = {}
    if image is None:
        texts.update(locks.resolve_tools(next(iter(rows.bases.values())), rows.tools))
    for target in chosen:
        click.echo(f"resolving {target.key}", err=True)
        texts.update(locks.resolve(target, settings))
    for name, text in texts.items():
        (folder / "locks" / name).write_text(text, encoding="utf-8")
        click.echo(f"wrote images/locks/{name}")
