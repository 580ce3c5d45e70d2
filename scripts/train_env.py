"""Install torch and the trainers' packages into this virtual environment, and say first what will be downloaded.

On Linux x86-64 with the images' Python it installs the image's own lock, so that a run as processes computes with the
same bits as one in a container. Torch comes from STACK_WHEELHOUSE if it holds it, else from PyTorch's CPU index if that
answers. Elsewhere, or without either, locks/train.txt from the package index.
"""

from __future__ import annotations

import os
import platform
import sys
import urllib.request
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker

from stackctl.engines import process
from stackctl.errors import StackError
from stackctl.images import catalog, lockfile, sums
from stackctl.images.build import wheels_at_hand
from stackctl.images.catalog import Target
from stackctl.images.lock_list import lock_of, pins_of
from stackctl.images.lockfile import Pin
from stackctl.images.settings import Settings, from_env

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "images" / "locks"
SECONDS = 10


def main() -> int:
    """Install what is missing; returns an exit code."""
    try:
        install()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def install() -> None:
    """Install what is missing; says where it comes from and how many bytes it is."""
    settings = from_env(os.environ)
    target, framework, others = image_pins()
    serving, served = serving_pins()
    if not _missing([*framework, *others, *served]):
        return
    index = package_index(settings)
    source = torch_source(target, settings) if _same_python(target) else None
    if source is None:
        lock = ROOT / "locks" / "train.txt"
        print("torch: from the package index, whose Linux build carries CUDA with it")
        _install_rest(lockfile.parse(lock.read_text()), lock, index)
        return
    print(f"torch: {source.said}")
    _uv(LOCKS / lock_of(target, "framework").file, *source.options)
    _install_rest(others, LOCKS / lock_of(target, "packages").file, index)
    _install_rest(served, LOCKS / lock_of(serving, "packages").file, index)


class Source(NamedTuple):
    """Where torch's CPU build comes from: in words, and as options of uv."""

    said: str
    options: tuple[str, ...]


def torch_source(target: Target, settings: Settings) -> Source | None:
    """The wheelhouse if it holds torch, else PyTorch's CPU index if it answers, else None."""
    if settings.wheelhouse and wheels_at_hand(target, settings.wheelhouse, LOCKS.parent):
        said = f"from the wheelhouse {settings.wheelhouse}, nothing to download"
        return Source(said, ("--offline", "--find-links", str(settings.wheelhouse)))
    index = settings.torch_index or target.variant.index
    if not _answers(index, "torch"):
        return None
    _, framework, _ = image_pins()
    return Source(f"the CPU build from {index}, {_megabytes(framework)}", ("--default-index", index))


def image_pins() -> tuple[Target, list[Pin], list[Pin]]:
    """The pytorch CPU image, and its locks: the framework's layer, everything else."""
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    return target, pins_of(target, LOCKS.parent, "framework"), pins_of(target, LOCKS.parent, "packages")


def serving_pins() -> tuple[Target, list[Pin]]:
    """The serve CPU image, and its packages beside the framework's layer, which is the same."""
    target = catalog.targets(catalog.load(), "serve", "cpu")[0]
    return target, pins_of(target, LOCKS.parent, "packages")


def package_index(settings: Settings) -> str:
    """The package index in use: the environment's, else the one that pip itself has as its default; else empty."""
    if settings.package_index:
        return settings.package_index
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ""  # a virtual environment without pip: uv knows its own default, but cannot be asked for it
    return str(PyPI.simple_url)


def _install_rest(pins: list[Pin], lock: Path, index: str) -> None:
    missing = _missing(pins)
    if missing:
        print(f"packages: {len(missing)} from the package index, {_megabytes(missing)}")
        _uv(lock, *(("--default-index", index) if index else ()))


def _uv(lock: Path, *options: str) -> None:
    argv = ["uv", "pip", "install", "--python", sys.executable, "--no-deps", "--require-hashes", "--compile-bytecode"]
    process.stream([*argv, *options, "--requirements", str(lock)])


def _missing(pins: Iterable[Pin]) -> list[Pin]:
    """The pins whose exact version is not installed and whose marker, if any, asks for it."""
    return [pin for pin in pins if _applies(pin) and _installed(pin.name) != pin.version]


def _applies(pin: Pin) -> bool:
    return not pin.marker or Marker(pin.marker).evaluate()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _same_python(target: Target) -> bool:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sys.platform == "linux" and platform.machine() == "x86_64" and python == target.base.python


def _answers(index: str, package: str) -> bool:
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/{package}/", timeout=SECONDS) as page:
            return bool(page.status == 200)
    except (OSError, ValueError):
        return False


def _megabytes(pins: Iterable[Pin]) -> str:
    """How much an installer would fetch, in words, by what the images' locks note of each release.

    Another Python's or platform's file of a release is about as large.
    """
    noted: dict[str, int] = {}
    for image in ("serve", "pytorch"):
        for variant in ("cuda", "cpu"):
            noted |= sums.releases((LOCKS / f"{image}-{variant}.sums").read_text())
    sizes = [noted.get(f"{pin.name}=={pin.version}") for pin in pins]
    unknown = sizes.count(None)
    known = f"{sum(size or 0 for size in sizes) / 1e6:,.0f} MB to download"
    return known + (f" and {unknown} files of unknown size" if unknown else "")


if __name__ == "__main__":
    sys.exit(main())
