"""`stackctl sbom`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stackctl import assets
from stackctl.cli import complete
from stackctl.errors import InvalidInput, MissingHere
from stackctl.images import catalog
from stackctl.images.settings import from_env

if TYPE_CHECKING:
    from stackctl.images.inventory import Inventory


@click.command()
@click.argument("image", shell_complete=complete.images)
@click.option("--variant", metavar="NAME", help="Which variant: cpu or cuda.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there, not to the terminal."
)
def sbom(image: str, variant: str | None, output: Path | None) -> None:
    """Print the bill of materials of an image, as CycloneDX JSON.

    From the locks: every Python package with its purl, version and hashes. Where the image is built, also Debian's
    packages and all licences. The same inputs give the same bytes.

    \b
    Examples:
      stackctl sbom pytorch --variant cuda -o pytorch-cuda.cdx.json
    """
    from stackctl.images import sbom as bills

    targets = catalog.targets(catalog.load(), image, variant, from_env(os.environ).image_prefix)
    if len(targets) > 1:
        names = " or ".join(f"--variant {target.variant_name}" for target in targets)
        raise InvalidInput(f"{image} has {len(targets)} variants, and a bill is of one", hint=f"give {names}")
    (target,) = targets
    bill = bills.document(target, assets.images_dir(), _inside(target.tag))
    text = msgspec.json.format(msgspec.json.encode(bill), indent=2).decode() + "\n"
    if output:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"cannot be written: {error.strerror}", where=str(output)) from None
        click.echo(f"{output}: {len(bill['components'])} components", err=True)
    else:
        click.echo(text, nl=False)


def _inside(tag: str) -> Inventory | None:
    from stackctl.engines import docker
    from stackctl.images import inventory

    reason = f"{tag} is not built here"
    try:
        docker.require()  # a client without an engine is no better than none
        if docker.images([tag]):
            return inventory.take(tag)
    except MissingHere as error:
        reason = error.message
    click.echo(f"note: {reason}: without Debian's packages and licences", err=True)
    return None
