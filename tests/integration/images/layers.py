"""What an image was made of, as the engine tells it."""

from __future__ import annotations

import subprocess


def steps(image: str) -> list[str]:
    """The steps that wrote an image's layers, the first one first.

    Where the steps, and what they read, are the same, the engine keeps their layers once: as long as the builder has
    them. Made again they hold the same files, written at another time, so their digests tell of the builder's cache.
    """
    argv = ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line for line in reversed(printed.splitlines()) if line.startswith(("RUN ", "COPY "))]
