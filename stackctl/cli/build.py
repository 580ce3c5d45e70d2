"""`stackctl build`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from stackctl import assets
from stackctl.cli.matrix import IMAGE, VARIANT
from stackctl.errors import InvalidInput
from stackctl.images import catalog
from stackctl.images.settings import from_env


@click.command()
@IMAGE
@VARIANT
@click.option("--devel", is_flag=True, help="The images for development: with compilers, debuggers and notebooks.")
@click.option(
    "--wheelhouse",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
    help="Use the wheels in DIR before any index. [default: STACK_WHEELHOUSE]",
)
@click.option("--offline", is_flag=True, help="Use no network: all comes from what `stackctl wheelhouse` collected.")
@click.option("--no-cache", is_flag=True, help="Repeat every step.")
@click.option("--dry-run", is_flag=True, help="Print the buildx command lines and stop.")
@click.option("--verbose", is_flag=True, help="Show all that the builder says.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress goes to standard error.")
def build(
    image: str | None,
    variant: str | None,
    devel: bool,
    wheelhouse: Path | None,
    offline: bool,
    no_cache: bool,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Build images, and say what came of it.

    Without IMAGE every image is built but those on demand (`stackctl images`), without --variant every variant; a CUDA
    variant is some 5 GB. Mirrors, a private CA and a wheelhouse are settings in the environment; docs/settings.md lists
    them.

    \b
    Examples:
      stackctl build pytorch --variant cpu
      stackctl build pytorch --variant cpu --devel
      STACK_WHEELHOUSE=wheels stackctl build pytorch --variant cpu
    """
    import shlex
    from functools import partial

    from stackctl.engines import docker
    from stackctl.images import build as builder
    from stackctl.images import lock

    settings = from_env(os.environ)
    settings = msgspec.structs.replace(settings, wheelhouse=wheelhouse or settings.wheelhouse, offline=offline)
    if offline and not settings.wheelhouse:
        raise InvalidInput("needs a wheelhouse", where="--offline", hint="collect one with `stackctl wheelhouse`")
    rows = catalog.load()
    chosen = catalog.targets(rows, image, variant, settings.image_prefix)
    if image is None:
        chosen = [target for target in chosen if target.image.default]
    if devel:
        chosen = [msgspec.structs.replace(target, development=True) for target in chosen]
    if dry_run:
        for target in chosen:
            steps = builder.plan(
                target, settings, context=Path("CONTEXT"), images=assets.images_dir(), labels={}, no_cache=no_cache
            )
            click.echo(shlex.join(steps.argv))
        return
    lock.check_tools(rows.tools, assets.images_dir())
    for target in chosen:
        lock.check(target, assets.images_dir())
    docker.require("buildx")
    if len(chosen) > 1:
        click.echo(f"building {len(chosen)} images: {', '.join(target.tag for target in chosen)}", err=True)
    results = []
    for target in chosen:
        built = builder.build(target, settings, no_cache=no_cache, verbose=verbose, show=partial(click.echo, err=True))
        results.append(built)
        if not as_json:
            click.echo(f"{built.tag}  {built.digest[:19]}  {built.size / 1e9:.2f} GB  {built.seconds:.1f} s")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
    sys.stdout.flush()
