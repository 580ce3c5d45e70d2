"""`stackctl validate`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl import assets
from stackctl.cli.image_options import IMAGE, VARIANT
from stackctl.errors import MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env

if TYPE_CHECKING:
    from stackctl.validate.results import Result


@click.command()
@IMAGE
@VARIANT
@click.option("--files", "files_only", is_flag=True, help="Check files only, and no image.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(image: str | None, variant: str | None, files_only: bool, as_json: bool) -> None:
    """Check that files and images are what they should be.

    Files: generated ones are up to date, Dockerfiles lint-clean, locks as the resolver wrote them, Compose files and
    Kubernetes manifests valid. Images that are built here: labels and packages as locked, size within the catalog's
    budget, no root, no secrets in files, history or settings. With IMAGE, only what concerns it.

    One line a check: ok, FAIL or skip. Ends with exit code 1 if one failed.
    """
    from stackctl.validate import results

    found = []
    for result in _checks(image, variant, files_only=files_only):
        found.append(result)
        if not as_json:
            click.echo(results.line(result))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    click.echo(results.summary(found), err=True)
    if any(result.state == results.FAILED for result in found):
        raise click.exceptions.Exit(1)


def _checks(image: str | None, variant: str | None, *, files_only: bool) -> Iterator[Result]:
    from stackctl.engines import docker
    from stackctl.validate import built, sources
    from stackctl.validate.results import SKIPPED, Result

    rows = catalog.load()
    targets = catalog.targets(rows, image, variant, from_env(os.environ).image_prefix)
    folder = assets.images_dir()
    if assets.in_checkout():
        yield from sources.checks(folder.parent, rows, targets, whole=image is None and variant is None)
    else:
        yield Result("files", "", SKIPPED, "an installed stackctl has no checkout to check")
    if files_only:
        return
    try:
        docker.require()
        infos = docker.images([target.tag for target in targets])
    except MissingHere as error:
        yield Result("images", "", SKIPPED, error.message)
        return
    for target in targets:
        yield from built.checks(target, folder, infos.get(target.tag))
