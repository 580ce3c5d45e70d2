"""`stackctl render`."""

from __future__ import annotations

import click

from stackctl import assets
from stackctl.cli.image_options import need_checkout
from stackctl.errors import JobFailed


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not what would be written.")
def render(check: bool) -> None:
    """Write the Dockerfiles and Compose files from their data.

    They are committed, so that a reader sees what is built; edit catalog, templates or workloads instead.
    """
    from stackctl import generated

    need_checkout()
    root = assets.images_dir().parent
    files = generated.files(assets.images_dir())
    stale = generated.stale(files, root)
    if check:
        if stale:
            raise JobFailed(f"not up to date: {', '.join(stale)}", hint="run `stackctl render` and commit the result")
        click.echo(f"{len(files)} generated files are up to date", err=True)
        return
    for name in stale:
        generated.write(name, files, root)
        click.echo(f"wrote {name}" if name in files else f"removed {name}")
    click.echo(f"{len(files)} generated files are up to date", err=True)
