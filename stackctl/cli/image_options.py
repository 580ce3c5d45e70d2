"""What the commands on images share: their argument, their option, and where they may write."""

from __future__ import annotations

import click

from stackctl import assets
from stackctl.cli import complete
from stackctl.errors import InvalidInput

IMAGE = click.argument("image", required=False, shell_complete=complete.images)
VARIANT = click.option("--variant", metavar="NAME", help="Only this variant: cpu or cuda.")


def need_checkout() -> None:
    """See that there are sources to write to.

    Raises:
        InvalidInput: stackctl is installed without them.
    """
    if not assets.in_checkout():
        raise InvalidInput("an installed stackctl has no sources to change", hint="run this in a checkout")
