"""`stackctl images`, `lock`, `render`, `build`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from stackctl import assets
from stackctl.cli import complete
from stackctl.errors import InvalidInput, JobFailed, MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env

IMAGE = click.argument("image", required=False, shell_complete=complete.images)
VARIANT = click.option("--variant", metavar="NAME", help="Only this variant: cpu or cuda.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def images(as_json: bool) -> None:
    """Show the image matrix.

    One line an image and variant: the framework's version, CUDA, Python, base, and whether it is built here.
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
        size = f"{row['size'] / 1e9:.2f} GB" if isinstance(row["size"], int) else "no" if engine else "?"
        cells = (row["tag"], row["framework"], row["cuda"] or "-", row["python"], row["base"], size)
        table.append(tuple(str(cell) for cell in cells))  # type: ignore[arg-type]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


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
    _need_checkout()
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


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if a file is not what would be written.")
def render(check: bool) -> None:
    """Write the Dockerfiles and Compose files from their data.

    They are committed, so that a reader sees what is built; edit catalog, templates or workloads instead.
    """
    from stackctl import generated

    _need_checkout()
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


@click.command()
@IMAGE
@VARIANT
@click.option("--no-cache", is_flag=True, help="Repeat every step.")
@click.option("--dry-run", is_flag=True, help="Print the buildx command lines and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; progress goes to standard error.")
def build(image: str | None, variant: str | None, no_cache: bool, dry_run: bool, as_json: bool) -> None:
    """Build images, and say what came of it.

    Without IMAGE every image is built, without --variant every variant; a CUDA variant is some 5 GB. Mirrors, a
    private CA and a wheelhouse are settings in the environment; docs/settings.md lists them.

    \b
    Examples:
      stackctl build pytorch --variant cpu
      STACK_WHEELHOUSE=wheels stackctl build pytorch --variant cpu
    """
    import shlex

    from stackctl.engines import docker
    from stackctl.images import build as builder

    settings = from_env(os.environ)
    chosen = catalog.targets(catalog.load(), image, variant, settings.image_prefix)
    if dry_run:
        for target in chosen:
            steps = builder.plan(
                target, settings, context=Path("CONTEXT"), images=assets.images_dir(), labels={}, no_cache=no_cache
            )
            click.echo(shlex.join(steps.argv))
        return
    docker.require("buildx")
    if len(chosen) > 1:
        click.echo(f"building {len(chosen)} images: {', '.join(target.tag for target in chosen)}", err=True)
    results = []
    for target in chosen:
        built = builder.build(target, settings, no_cache=no_cache)
        results.append(built)
        if not as_json:
            click.echo(f"{built.tag}  {built.digest[:19]}  {built.size / 1e9:.2f} GB  {built.seconds:.1f} s")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2))
    sys.stdout.flush()


def _need_checkout() -> None:
    if not assets.in_checkout():
        raise InvalidInput("an installed stackctl has no sources to change", hint="run this in a checkout")
