"""The folder that images are built from."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from stackctl import assets, folders
from stackctl.errors import MissingHere

_PARTS = ("build", "facts", "locks", "patches")
_KILLED_SECONDS = 3600.0
"""After which a copy that was begun is one that nobody goes on with."""

_FOLDER, _FILE, _PROGRAM = 0o755, 0o644, 0o755


def build_context() -> Path:
    """The folder to build images from: it holds images/build, images/facts, images/locks, images/patches and
    images/stackrt.

    In a checkout that is the checkout itself. An installed stackctl gathers the same files in the user's cache
    folder, under their digest: BuildKit sends again what comes from a path that it has not seen, so a fresh
    temporary folder would cost every build the transfer of the whole wheelhouse. There the files have the modes that
    an image's user needs, whatever the umask was when stackctl was installed.

    Raises:
        MissingHere: They cannot be gathered there.
    """
    if assets.in_checkout():
        return assets.images_dir().parent
    installed = assets.images_dir()
    sources = {name: installed / name for name in _PARTS} | {"stackrt": assets.payload_dir() / "stackrt"}
    wanted = _digest(sources)
    final = folders.cache() / "context" / wanted[:16]
    try:
        if not _holds(final, wanted):
            _gather(sources, final, wanted)
    except OSError as error:
        said = f"the files to build from cannot be gathered here: {error.strerror}"
        hint = "name another folder with XDG_CACHE_HOME, or make room"
        raise MissingHere(said, where=str(final.parent), hint=hint) from None
    return final


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _mode(file: Path) -> int:
    """That which an image's user needs."""
    return _PROGRAM if file.stat().st_mode & 0o100 else _FILE


def _digest(sources: Mapping[str, Path]) -> str:
    """Of names, contents, and which are programs."""
    digest = hashlib.sha256()
    for name, folder in sources.items():
        for path in _files(folder):
            digest.update(f"{name}/{path.relative_to(folder)}\0{_mode(path)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _holds(final: Path, wanted: str) -> bool:
    """Whether the files are there, whole."""
    return _digest({name: final / "images" / name for name in (*_PARTS, "stackrt")}) == wanted


def _gather(sources: Mapping[str, Path], final: Path, wanted: str) -> None:
    """Copy the files there, aside first: two builds may do so at once, and either may be killed."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f"{final.name}.*"):
        if time.time() - left.stat().st_mtime > _KILLED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{final.name}.", dir=final.parent) as aside:
        made = Path(aside, "made")
        for name, folder in sources.items():
            for path in _files(folder):
                copy = made / "images" / name / path.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                copy.chmod(_mode(path))
        for path in (made, *(path for path in made.rglob("*") if path.is_dir())):
            path.chmod(_FOLDER)
        if final.exists() and not _holds(final, wanted):
            final.rename(Path(aside, "before"))
        try:
            made.rename(final)
        except OSError:  # another build has just made it, and builds from it
            if not _holds(final, wanted):
                raise
