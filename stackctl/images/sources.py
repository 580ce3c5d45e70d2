"""What the locks of an image ask for, as files: their names, addresses, sizes and hashes, as uv finds them."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
import urllib.parse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from stackctl.engines import process
from stackctl.engines.download import Downloader, File, login_of
from stackctl.errors import CommandFailed, JobFailed
from stackctl.images import lock_list, lockfile
from stackctl.images.catalog import Target
from stackctl.images.lockfile import Pin, place
from stackctl.images.settings import Settings, uv_environment

_HINT = "see docs/settings.md for mirrors, a private CA and a wheelhouse"


def files(target: Target, settings: Settings, images: Path) -> list[File]:
    """The files of an image's locks, for its Python and platform; each once.

    Raises:
        JobFailed: An index does not answer or lacks a version, or offers no file of it that the lock allows.
        MissingHere: uv is not installed.
    """
    with ThreadPoolExecutor() as pool:
        lists = pool.map(lambda name: _of_lock(images / "locks" / name, target, settings), lock_list.fetched(target))
        return list({file.name: file for some in lists for _, file in some}.values())


def sizes(locks: Mapping[str, str], target: Target, settings: Settings) -> dict[str, int]:
    """Digest of a package's lines -> bytes of the file to fetch, where it can be found out.

    Args:
        locks: File name -> text, of locks that may not be written yet.
        target: Whose locks they are, or whose Python and platform they are for.
        settings: Where packages come from.

    Raises: as `files`.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        paths = [Path(folder, name) for name in locks]
        for path in paths:
            path.write_text(locks[path.name], encoding="utf-8")
        rows = [row for some in pool.map(lambda path: _of_lock(path, target, settings), paths) for row in some]
    sized = with_sizes([file for _, file in rows], downloader(settings))
    return {pin.digest: file.size for (pin, _), file in zip(rows, sized, strict=True) if file.size is not None}


def with_sizes(found: list[File], downloader: Downloader) -> list[File]:
    """The same files; where an index named no size, the server of the file is asked."""
    with ThreadPoolExecutor() as pool:
        sizes = pool.map(lambda file: file.size if file.size is not None else _size(file, downloader), found)
        return [msgspec.structs.replace(file, size=size) for file, size in zip(found, sizes, strict=True)]


def downloader(settings: Settings) -> Downloader:
    """A downloader that trusts what a build trusts, and has the package index's password if its address holds one."""
    return Downloader(settings.ca_bundle, login_of([settings.package_index]))


def _of_lock(path: Path, target: Target, settings: Settings) -> list[tuple[Pin, File]]:
    pins = lockfile.parse(lock_list.read(path, target))
    if not pins:
        return []
    argv = ["uv", "pip", "compile", str(path), "--no-deps", "--format", "pylock.toml", "--quiet", "--no-header"]
    argv += ["--no-annotate", "--python-version", target.base.python, "--python-platform", target.base.wheel_platform]
    house = settings.wheelhouse
    if house and not lockfile.lacking(pins, house):
        argv += ["--no-index", "--find-links", str(house)]
    elif path.name == lock_list.lock_of(target, "framework").file and target.variant.index:
        argv += ["--default-index", settings.torch_index or target.variant.index]
    try:
        env = uv_environment(settings, os.environ) | {"UV_HTTP_TIMEOUT": "30", "UV_HTTP_RETRIES": "5"}
        answer = process.run(argv, env=env, hint="install it with `pip install uv`")
    except CommandFailed as error:
        raise _explained(error, path) from None
    # What a build makes wheels of, with tools that have a lock of their own.
    compiled = ("horovod", *target.image.sources)
    packages = {row["name"]: row for row in tomllib.loads(answer)["packages"]}
    return [(pin, _file(pin, packages[pin.name], path, compiled)) for pin in pins]


def _file(pin: Pin, package: dict[str, Any], lock: Path, compiled: Sequence[str]) -> File:
    """The file of a package to fetch: a wheel that the lock allows, else the source release.

    Where several wheels fit, the largest: the compiled one, beside one in plain Python.
    """
    allowed = tuple(digest.removeprefix("sha256:") for digest in pin.hashes)
    wheels = package.get("wheels", [])
    offered = wheels or ([package["sdist"]] if "sdist" in package else [])
    fits = [row for row in offered if row.get("hashes", {}).get("sha256", allowed[0]) in allowed]
    if not fits:
        what = f"no file of {pin.name} {pin.version} that is offered has a hash of the lock"
        raise JobFailed(what, where=place(lock, pin.name), hint="the index serves other files than were locked")
    if not wheels and pin.name not in compiled:
        raise JobFailed(
            f"{pin.name} {pin.version} exists only as a source archive, whose build would fetch tools without a hash",
            where=lock.name,
            hint="choose one that has a wheel; of plain Python, name it in `sources` of images/catalog.toml",
        )
    row = max(fits, key=lambda row: int(row.get("size", 0)))
    url = str(row["url"])
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return File(name, url, row.get("size"), allowed, place(lock, pin.name))


def _size(file: File, asked: Downloader) -> int | None:
    if file.url.startswith("file:"):
        return Path(urllib.parse.unquote(urllib.parse.urlsplit(file.url).path)).stat().st_size
    return asked.size(file.url)


def _explained(error: CommandFailed, lock: Path) -> JobFailed:
    """uv's words about a lock, as one sentence."""
    absent = re.search(r"no version of ([\w.-]+)==(\S+)", error.output)
    if absent:
        what = f"the package index has no {absent[1]} {absent[2].rstrip(',')} for this Python and platform"
        return JobFailed(what, where=place(lock, absent[1]), hint=_HINT)
    unreachable = re.search(r"Failed to fetch: `?(\S+?)`?\n", error.output)
    if unreachable:
        reason = error.output.strip().splitlines()[-1].removeprefix("  cause: ")
        what = f"the package index does not answer at {unreachable[1]}: {reason}"
        return JobFailed(what, where=str(lock), hint=_HINT)
    return JobFailed(f"uv cannot read it\n{error.output.strip()}", where=str(lock), hint=_HINT)
