"""What git knows of a folder."""

from __future__ import annotations

from pathlib import Path

from stackctl.engines import process
from stackctl.errors import StackError


def labels(folder: Path) -> dict[str, str]:
    """OCI labels for an image built from a checkout: its commit and that commit's time. Empty elsewhere.

    The time is the commit's, not the build's, so that building the same commit again gives the same image.
    """
    try:
        answer = process.run(["git", "-C", str(folder), "log", "-1", "--format=%H %cI"]).split()
        changed = process.run(["git", "-C", str(folder), "status", "--porcelain", "--", "."]).strip()
    except StackError:
        return {}
    return {
        "org.opencontainers.image.revision": answer[0] + ("-dirty" if changed else ""),
        "org.opencontainers.image.created": answer[1],
    }
