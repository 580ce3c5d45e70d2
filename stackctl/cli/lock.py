"""`stackctl lock`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from stackctl import assets
from stackctl.cli.image_options import IMAGE, VARIANT, need_checkout
from stackctl.images import catalog
from stackctl.images.settings import from_env


@click.command()
@IMAGE
@VARIANT
@click.option(
    "--check", is_flag=True, help="Write nothing; fail if a lock is edited or does not answer to the catalog."
)
@click.option("--upgrade", is_flag=True, help="Take the newest versions of all that the catalog leaves open.")
def lock(image: str | None, variant: str | None, check: bool, upgrade: bool) -> None:
    """Resolve an image's packages into hashed locks.

    Versions come from images/catalog.toml; what it leaves open keeps its version where that still fits. Says what
    changed, a line a package. Needs uv and a package index.

    \b
    Examples:
      stackctl lock pytorch
      stackctl lock pytorch --upgrade
      stackctl lock --check
    """
    from stackctl.images import bases
    from stackctl.images import lock as locks

    rows = catalog.load()
    chosen = catalog.targets(rows, image, variant)
    folder = assets.images_dir()
    if check and upgrade:
        raise click.UsageError("--check writes nothing, and --upgrade does: give one of them")
    if upgrade and variant:
        raise click.UsageError("an image's variants keep the same versions: give --upgrade without --variant")
    if check:
        locks.check_tools(rows.tools, folder)
        for target in chosen:
            locks.check(target, folder)
            if lacking := locks.lacking(target, folder):
                click.echo(
                    f"note: {target.key}: without {', '.join(lacking)}, which the framework's index did not offer when "
                    f"it was locked; `stackctl lock {target.name}` asks again",
                    err=True,
                )
        for name in dict.fromkeys(target.name for target in chosen):
            locks.check_variants(catalog.targets(rows, name), folder)
        click.echo(f"the locks of {len(chosen)} images are as the resolver wrote them", err=True)
        return
    need_checkout()
    settings = from_env(os.environ)
    texts: dict[str, str] = {}
    if image is None:
        texts.update(locks.resolve_tools(rows, settings, folder))
        if pins := bases.pin(rows.bases, settings, partial(click.echo, err=True)):
            texts[catalog.BASES_LOCK] = pins
    fresh: dict[str, dict[str, str]] = {}
    for target in chosen:
        click.echo(f"resolving {target.key}", err=True)
        kept = {} if upgrade else locks.present(target, folder, catalog.targets(rows, target.name))
        resolved = locks.resolve(target, settings, folder, kept | fresh.get(target.name, {}))
        fresh[target.name] = resolved.shared
        texts.update(resolved.files)
        click.echo(
            "\n  ".join([f"{target.key}:", *resolved.changes] if resolved.changes else [f"{target.key}: as it was"])
        )
        if resolved.not_offered:
            click.echo(f"note: {target.key}: {resolved.not_offered}", err=True)
        for line in locks.newer(target, settings, folder) if upgrade else ():
            click.echo(f"note: {target.key}: {line}", err=True)
    written = [name for name, text in texts.items() if _write(folder / "locks" / name, text)]
    if written:
        click.echo(f"wrote {len(written)} files below images/locks; now run `stackctl render`", err=True)


def _write(path: Path, text: str) -> bool:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True
