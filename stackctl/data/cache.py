"""The folder of fetched data sets: what is there, whether it is right, and fetching what is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from stackctl import folders
from stackctl.engines import download
from stackctl.engines.download import Downloader
from stackctl.engines.file_lock import held
from stackctl.errors import InvalidInput, JobFailed, MissingHere, did_you_mean
from stackrt.pictures import known
from stackrt.pictures.known import Debian, Known

MIRROR = "STACK_DATA_MIRROR"
"""The variable that names an address, or a folder, with a folder NAME for each set; it is tried first."""

Tell = Callable[[str], None]
State = Literal["fetched", "partial", "absent", "ships"]


class Row(msgspec.Struct, frozen=True):
    """A set, and what of it is here."""

    name: str
    title: str
    licence: str
    home: str
    size: int
    state: State
    path: str


class Wrong(msgspec.Struct, frozen=True):
    """A file that is lacking or has another sum."""

    path: str
    what: str


def rows(cache: Path) -> list[Row]:
    """Every set that has a name; files are looked for, and not read."""
    shipped = Row(
        known.SHIPPED, "Handwritten digits, 8 x 8 grey, 1,797 in all", "CC BY 4.0", "", 0, "ships", "in the trainers"
    )
    return [shipped, *(_row(one, cache) for one in known.load().values())]


def find(name: str) -> Known:
    """A set that can be fetched.

    Raises:
        InvalidInput: There is none of that name.
    """
    sets = known.load()
    if name == known.SHIPPED:
        raise InvalidInput(f"{name} ships with the trainers: nothing is fetched for it")
    if name.startswith(known.TFDS):
        raise InvalidInput(
            f"{name} is prepared by tensorflow-datasets, in a TensorFlow image that has a network",
            hint=f"there: tfds build {name.removeprefix(known.TFDS)} --data_dir FOLDER/tfds, FOLDER being the cache",
        )
    if name not in sets:
        raise InvalidInput(f"no data set is named {name!r}", hint=did_you_mean(name, sets))
    return sets[name]


def wrong(one: Known, cache: Path) -> list[Wrong]:
    """The files of a set that are lacking or are not what they should be. All are read."""
    found = []
    for file in one.files:
        path = cache / one.name / file.name
        try:
            digest = download.sha256(path)
        except FileNotFoundError:
            found.append(Wrong(str(path), "is not there"))
            continue
        except OSError as error:
            found.append(Wrong(str(path), f"cannot be read: {error.strerror}"))
            continue
        if digest not in file.sha256:
            found.append(Wrong(str(path), f"has another hash than sets.toml: {digest}"))
    return found


def fetch(one: Known, cache: Path, downloader: Downloader, env: Mapping[str, str], apt_mirror: str, tell: Tell) -> Path:
    """Get what is lacking of a set, and give its folder. What is there with the right hash is kept.

    Args:
        one: The set.
        cache: Where sets are kept; made if absent.
        downloader: What fetches.
        env: May name a mirror.
        apt_mirror: Debian's mirror; empty for those of this machine's apt.
        tell: Hears what happens.

    Raises:
        JobFailed: No source has it, or none has the right files.
        MissingHere: The folder cannot be written, or its disk is full.
    """
    folder = cache / one.name
    with _writable(folder):
        made = [path for path in (cache, folder) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, lambda: tell(f"waiting for another stackctl that fetches {one.name}")):
            failures: list[JobFailed] = []
            for source in _sources(one, env, apt_mirror):
                lacking = {Path(row.path).name for row in wrong(one, cache)}
                if not lacking:
                    break
                try:
                    source(lacking, folder, downloader, tell)
                except JobFailed as error:
                    tell(f"note: {error.where or one.name}: {error.message}")
                    failures.append(error)
            if left := wrong(one, cache):
                said = failures[-1].message if failures else f"{left[0].path} {left[0].what}"
                raise JobFailed(
                    f"no source gives {one.name}: {said}",
                    where=one.name,
                    hint=f"see docs/data.md for mirrors ({MIRROR}, STACK_APT_MIRROR) and machines without a network",
                )
            # Containers read them as another user, whatever the umask here was; the sets are public.
            for path in (*made, *(folder / file.name for file in one.files)):
                mode = path.stat().st_mode | (0o555 if path in made else 0o444)
                if path.stat().st_uid == os.geteuid():
                    path.chmod(mode)
    return folder


Source = Callable[[set[str], Path, Downloader, Tell], None]


def _sources(one: Known, env: Mapping[str, str], apt_mirror: str) -> Iterator[Source]:
    """Where a set may come from, in the order that is tried."""
    if mirror := env.get(MIRROR):
        address = mirror if "://" in mirror else folders.expanded(mirror).absolute().as_uri()
        yield _plain(one, f"{address.rstrip('/')}/{one.name}")
    for address in one.sources:
        yield _plain(one, address)
    if one.debian:
        yield _package(one, one.debian, apt_mirror)


def _plain(one: Known, address: str) -> Source:
    """The files as they are, below an address."""

    def source(lacking: set[str], folder: Path, downloader: Downloader, tell: Tell) -> None:
        for file in one.files:
            if file.name in lacking:
                tell(f"{one.name}: {file.name}, {file.size / 1e6:,.1f} MB, from {_told(address)}")
                url = f"{address}/{file.name}"
                try:
                    asked = download.File(file.name, url, file.size, file.sha256, _told(address), "sets.toml")
                    downloader.fetch(asked, folder)
                except FileNotFoundError:
                    raise JobFailed(f"{file.name} is not there", where=_told(address)) from None

    return source


def _package(one: Known, package: Debian, apt_mirror: str) -> Source:
    """Out of Debian's package."""

    def source(lacking: set[str], folder: Path, downloader: Downloader, tell: Tell) -> None:
        from stackctl.data import apt, deb

        mirrors = [apt_mirror] if apt_mirror else apt.mirrors()
        if not mirrors:
            tell(f"note: Debian's package has {one.name} too, and no mirror of it is known: STACK_APT_MIRROR names one")
            return
        name, mirror = package.path.rpartition("/")[2], mirrors[0]
        tell(f"{one.name}: {name}, {package.size / 1e6:,.1f} MB, from {_told(mirror)}")
        url = f"{mirror}/{package.path}"
        asked = download.File(name, url, package.size, (package.sha256,), _told(mirror), "sets.toml")
        downloader.fetch(asked, folder)
        try:
            deb.unpack(folder / name, package.folder, lacking, folder)
        finally:
            (folder / name).unlink(missing_ok=True)

    return source


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, then run this again: it goes on where it stopped"
        else:
            hint = f"choose a folder that you may write to: {known.FOLDER}=FOLDER stackctl data fetch …"
        raise MissingHere(f"cannot be written: {error.strerror}", where=str(folder), hint=hint) from None


def _row(one: Known, cache: Path) -> Row:
    folder = cache / one.name
    there = [os.path.isfile(folder / file.name) for file in one.files]  # noqa: PTH113 - pathlib's raises where we may not look
    state: State = "fetched" if all(there) else "partial" if any(there) else "absent"
    return Row(one.name, one.title, one.licence, one.home, one.size, state, str(folder))


def _told(address: str) -> str:
    """An address without its password."""
    scheme, separator, rest = address.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def chosen(names: Sequence[str]) -> list[Known]:
    """The sets of these names."""
    return [find(name) for name in names]
