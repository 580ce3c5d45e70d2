"""Debian's mirrors, as this machine's own apt has them."""

from __future__ import annotations

import re

from stackctl.engines import process
from stackctl.errors import CommandFailed, MissingHere


def mirrors() -> list[str]:
    """Where apt asks for Debian's packages, in its order; none without apt, or on another system.

    Source: apt-get(8), `--print-uris`, which asks and changes nothing.
    """
    try:
        said = process.run(["apt-get", "update", "--print-uris"])
    except (MissingHere, CommandFailed):
        return []
    return list(dict.fromkeys(re.findall(r"'(https?://\S+/debian)/dists/", said)))
