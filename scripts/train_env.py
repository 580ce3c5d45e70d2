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

from packaging.markers import Marker
from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from stackctl.engines import process
from stackctl.images import catalog, lockfile
from stackctl.images.build import wheels_at_hand
from stackctl.images.lockfile import Pin
from stackctl.images.settings import Settings, from_env

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "images" / "locks"
JSON_PAGE = "application/vnd.pypi.simple.v1+json"
SECONDS = 10


def install() -> None:
    """Install what is missing; says where it comes from and how many bytes it is."""
    settings = from_env(os.environ)
    target = catalog.targets(catalog.load(), "pytorch", "cpu")[0]
    framework = lockfile.parse((LOCKS / target.framework_lock).read_text())
    others = lockfile.parse((LOCKS / target.packages_lock).read_text())
    same_python = sys.platform == "linux" and platform.machine() == "x86_64" and _python() == target.base.python
    index = package_index(settings)
    if not _missing([*framework, *others]):
        return
    if same_python and settings.wheelhouse and wheels_at_hand(target, settings.wheelhouse, LOCKS.parent):
        print(f"torch: from the wheelhouse {settings.wheelhouse}, nothing to download")
        _uv(LOCKS / target.framework_lock, "--offline", "--find-links", str(settings.wheelhouse))
        _install_rest(others, LOCKS / target.packages_lock, index)
    elif same_python and _answers(settings.torch_index or target.variant.index, "torch"):
        source = settings.torch_index or target.variant.index
        print(f"torch: the CPU build from {source}, {_megabytes(framework, source)}")
        _uv(LOCKS / target.framework_lock, "--default-index", source)
        _install_rest(others, LOCKS / target.packages_lock, index)
    else:
        lock = ROOT / "locks" / "train.txt"
        print("torch: from the package index, whose Linux build carries CUDA with it")
        _install_rest(lockfile.parse(lock.read_text()), lock, index)


def package_index(settings: Settings) -> str:
    """The package index in use: the environment's, else the one that pip itself has as its default."""
    if settings.package_index:
        return settings.package_index
    from pip._internal.models.index import PyPI

    return str(PyPI.simple_url)


def _install_rest(pins: list[Pin], lock: Path, index: str) -> None:
    missing = _missing(pins)
    if missing:
        print(f"packages: {len(missing)} from the package index, {_megabytes(missing, index)}")
        _uv(lock, "--default-index", index)


def _uv(lock: Path, *options: str) -> None:
    argv = ["uv", "pip", "install", "--python", sys.executable, "--no-deps", "--require-hashes", "--compile-bytecode"]
    env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    process.stream([*argv, *options, "--requirements", str(lock)], env=env)


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


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


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
