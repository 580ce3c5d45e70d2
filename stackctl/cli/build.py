"""`stackctl build`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl import assets
from stackctl.cli import complete
from stackctl.cli.image_options import VARIANT
from stackctl.errors import InvalidInput
from stackctl.images import catalog
from stackctl.images.catalog import Catalog, Target
from stackctl.images.settings import Settings, from_env

if TYPE_CHECKING:
    from stackctl.images.build import Built, Pushed


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGE]…", shell_complete=complete.images)
@VARIANT
@click.option("--devel", is_flag=True, help="The images for development: with compilers, debuggers and notebooks.")
@click.option(
    "--wheelhouse",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
    help="Use the wheels in DIR before any index. [default: STACK_WHEELHOUSE]",
)
@click.option("--offline", is_flag=True, help="Use no network: all comes from what `stackctl wheelhouse` collected.")
@click.option(
    "--push",
    "repository",
    metavar="REPO",
    help="Push each image as REPO/IMAGE:VERSION-VARIANT-LOCK, a name that is never given twice.",
)
@click.option("--no-cache", is_flag=True, help="Repeat every step.")
@click.option("--dry-run", is_flag=True, help="Print the buildx command lines and stop.")
@click.option("--verbose", is_flag=True, help="Show all that the builder says.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress goes to standard error.")
def build(
    images: tuple[str, ...],
    variant: str | None,
    devel: bool,
    wheelhouse: Path | None,
    offline: bool,
    repository: str | None,
    no_cache: bool,
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Build images, and say what came of it.

    Without IMAGE every image is built but those on demand (`stackctl images`), without --variant every variant. Says
    first what it may download. Mirrors, a private CA and a wheelhouse are settings in the environment;
    docs/settings.md lists them.

    \b
    Examples:
      stackctl build pytorch --variant cpu
      stackctl build pytorch tensorflow
      stackctl build pytorch --variant cpu --devel
      stackctl build pytorch --variant cpu --wheelhouse wheels --offline
      stackctl build pytorch --push registry.example/team
    """
    settings = from_env(os.environ)
    settings = msgspec.structs.replace(settings, wheelhouse=wheelhouse or settings.wheelhouse, offline=offline)
    if offline and not settings.wheelhouse:
        raise InvalidInput("needs a wheelhouse", where="--offline", hint="collect one with `stackctl wheelhouse`")
    rows = catalog.load()
    chosen = _targets(rows, images, variant, settings)
    if devel:
        chosen = [msgspec.structs.replace(target, development=True) for target in chosen]
    if dry_run:
        _show_plans(chosen, settings, no_cache=no_cache)
        return

    from stackctl import generated
    from stackctl.engines import docker
    from stackctl.images import build as builder
    from stackctl.images import lock, publish

    lock.check_tools(rows.tools, assets.images_dir())
    for target in chosen:
        lock.check(target, assets.images_dir())
    generated.need_fresh(chosen, assets.images_dir())
    docker.require("buildx")
    if repository:
        publish.check(chosen, repository)
    say = partial(click.echo, err=True)
    _forecast(chosen, settings)
    results = []
    for target in chosen:
        built = builder.build(target, settings, no_cache=no_cache, verbose=verbose, show=say)
        if repository:
            pushed = publish.push(target, built, repository, settings, say)
            built = msgspec.structs.replace(built, pushed=pushed)
        results.append(built)
        if not as_json:
            click.echo(_told(built))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
    sys.stdout.flush()


def _targets(rows: Catalog, images: Sequence[str], variant: str | None, settings: Settings) -> list[Target]:
    if images:
        return [target for name in images for target in catalog.targets(rows, name, variant, settings.image_prefix)]
    every = catalog.targets(rows, None, variant, settings.image_prefix)
    return [target for target in every if target.image.default]


def _show_plans(chosen: Sequence[Target], settings: Settings, *, no_cache: bool) -> None:
    import shlex

    from stackctl.images import build as builder

    folder = assets.images_dir()
    for target in chosen:
        steps = builder.plan(target, settings, context=Path("CONTEXT"), images=folder, labels={}, no_cache=no_cache)
        click.echo(shlex.join(steps.argv))


def _forecast(chosen: Sequence[Target], settings: Settings) -> None:
    from stackctl.engines import docker
    from stackctl.images import forecast

    if len(chosen) > 1:
        click.echo(f"building {len(chosen)} images: {', '.join(target.tag for target in chosen)}", err=True)
    expected = forecast.forecast(chosen, settings)
    for line in [*expected, *(forecast.in_all(expected, docker.free_disk()) if expected else ())]:
        click.echo(line, err=True)


def _told(built: Built) -> str:
    line = f"{built.tag}  {built.digest[:19]}  {built.size / 1e9:.2f} GB  {built.seconds:.1f} s"
    return f"{line}\n{_published(built.pushed)}" if built.pushed else line


def _published(pushed: Pushed) -> str:
    state = "pushed" if pushed.new else "there already"
    provenance = "with provenance" if pushed.provenance else "without provenance: this engine's builder cannot push it"
    return f"  {state}, {provenance}: {pushed.name}\n  sign it: cosign sign {pushed.pinned}"
