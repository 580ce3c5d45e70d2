"""What an image was made of, as the engine tells it, and what its programs say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def steps(image: str) -> list[str]:
    """The steps that wrote an image's layers, the first one first.

    Where the steps, and what they read, are the same, the engine keeps their layers once: as long as the builder has
    them. Made again they hold the same files, written at another time, so their digests tell of the builder's cache.
    """
    argv = ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return [line for line in reversed(printed.splitlines()) if line.startswith(("RUN ", "COPY "))]


def in_image(image: str, out: Path, *words: str, scripts: Path | None = None, timeout: float = 300) -> str:
    """Run a command in one container without a network, with a folder at /out, and one of scripts at /workspace."""
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "0", "--env", "OMP_NUM_THREADS=1"]
    argv += ["--volume", f"{out}:/out", *(["--volume", f"{scripts}:/workspace:ro"] if scripts else []), image, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def with_entrypoint(image: str) -> Iterator[str]:
    """An image built on one of ours that starts a program of its own; gives its tag."""
    tag = f"{image.partition(':')[0]}-own-entrypoint:{os.getpid()}"
    recipe = f'FROM {image}\nENTRYPOINT ["python", "-c", "print(1 / 0)"]\n'
    argv = ["docker", "build", "--quiet", "--tag", tag, "-"]
    subprocess.run(argv, input=recipe, text=True, capture_output=True, check=True)
    try:
        yield tag
    finally:
        subprocess.run(["docker", "image", "rm", tag], capture_output=True, check=True)
