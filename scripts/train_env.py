"""Install torch and the trainers' packages into this virtual environment, and say first what will be downloaded.

On Linux x86-64 with the images' Python it installs the image's own lock, so that a run as processes computes with the
same bits as one in a container. Torch comes from STACK_WHEELHOUSE if it holds it, else from PyTorch's CPU index if that
answers. Elsewhere, or without either, locks/train.txt from the package index.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import Marker
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from stackctl.engines import process
from stackctl.images import catalog, lockfile
from stackctl.images.build import wheels_at_hand
from stackctl.images.catalog import Target
from stackctl.images.lockfile import Pin
from stackctl.images.settings import Settings, from_env

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "images" / "locks"
JSON_PAGE = "application/vnd.pypi.simple.v1+json"
SECONDS = 10


def install() -> None:
    """Install what is missing; says where it comes from and how many bytes it is."""
    settings = from_env(os.environ)
    target, framework, others = image_pins()
    if not _missing([*framework, *others]):
        return
    index = package_index(settings)
    source = torch_source(target, settings) if _same_python(target) else None
    if source is None:
        lock = ROOT / "locks" / "train.txt"
        print("torch: from the package index, whose Linux build carries CUDA with it")
        _install_rest(lockfile.parse(lock.read_text()), lock, index)
        return
    print(f"torch: {source.said}")
    _uv(LOCKS / target.framework_lock, *source.options)
    _install_rest(others, LOCKS / target.packages_lock, index)


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
    return Source(f"the CPU build from {index}, {_megabytes(framework, index)}", ("--default-index", index))


def image_pins() -> tuple[Target, list[Pin], list[Pin]]:
    """The pytorch CPU image, and its locks: the framework's layer, everything else."""
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    framework, others = (
        lockfile.parse((LOCKS / name).read_text()) for name in (target.framework_lock, target.packages_lock)
    )
    return target, framework, others


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
        print(f"packages: {len(missing)} from the package index, {_megabytes(missing, index)}")
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


def _megabytes(pins: Iterable[Pin], index: str) -> str:
    """How much an installer would fetch, in words.

    Source: the simple repository API, https://packaging.python.org/specifications/simple-repository-api/
    """
    if not index:
        return "of unknown size"
    tags = frozenset(str(tag) for tag in sys_tags())
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(lambda pin: _size(pin, index, tags), pins))
    known = sum(size or 0 for size in sizes)
    unknown = sum(size is None for size in sizes)
    return f"{known / 1e6:,.0f} MB to download" + (f" and {unknown} files of unknown size" if unknown else "")


def _size(pin: Pin, index: str, tags: frozenset[str]) -> int | None:
    request = urllib.request.Request(f"{index.rstrip('/')}/{pin.name}/", headers={"Accept": JSON_PAGE})
    digests = {digest.removeprefix("sha256:") for digest in pin.hashes}
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as page:
            files = json.load(page)["files"]
    except (OSError, ValueError, KeyError):
        return None
    fits = [file["size"] for file in files if _fits(file, digests, tags)]
    return max(fits, default=None)


def _fits(file: dict[str, object], digests: set[str], tags: frozenset[str]) -> bool:
    hashes = file.get("hashes")
    if not isinstance(hashes, dict) or hashes.get("sha256") not in digests or not file.get("size"):
        return False
    try:
        return bool({str(tag) for tag in parse_wheel_filename(str(file["filename"]))[3]} & tags)
    except InvalidWheelFilename:
        return False


if __name__ == "__main__":
    install()
