"""Where the catalog, templates, locks and payload lie: in a checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets" / "images"
_CHECKOUT = _PACKAGE.parent / "images"
_PROFILES = Path("k8s", "profiles")


def images_dir() -> Path:
    """The folder that holds catalog.toml, templates, locks and dockerfiles."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def profiles_dir() -> Path:
    """The folder of the clusters' profiles."""
    return (_PACKAGE.parent if in_checkout() else _PACKAGE / "_assets") / _PROFILES


def in_checkout() -> bool:
    """True where the generated files can be written back to the repository."""
    return not _INSTALLED.is_dir()


def payload_dir() -> Path:
    """The folder that holds the package `stackrt`, to put on a module search path."""
    return _PACKAGE.parent if _INSTALLED.is_dir() else _CHECKOUT


def payload_path(folder: Path) -> Path:
    """A folder to put on a module search path that holds the payload, and of an installed stackctl nothing else.

    Beside an installed stackrt lie all packages of that environment; those are not for ranks of another.

    Args:
        folder: A run's folder, where a link is made if need be.
    """
    if in_checkout():
        return _CHECKOUT
    link = folder / ".payload" / "stackrt"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(payload_dir() / "stackrt")
    return link.parent


def build_context() -> Path:
    """The folder to build images from: it holds images/build, images/facts, images/locks, images/patches and
    images/stackrt.

    In a checkout that is the checkout itself. An installed stackctl gathers the same files in the user's cache
    folder, under their digest: BuildKit sends again what comes from a path that it has not seen, so a fresh
    temporary folder would cost every build the transfer of the whole wheelhouse.
    """
    if in_checkout():
        return _CHECKOUT.parent
    import hashlib
    import shutil
    import tempfile

    import platformdirs

    sources = {name: _INSTALLED / name for name in ("build", "facts", "locks", "patches")}
    sources["stackrt"] = payload_dir() / "stackrt"
    digest = hashlib.sha256()
    for folder in sources.values():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    final = platformdirs.user_cache_path("stackctl") / "context" / digest.hexdigest()[:16]
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as part:
            for name, folder in sources.items():
                shutil.copytree(folder, Path(part, "c", "images", name), ignore=shutil.ignore_patterns("__pycache__"))
            Path(part, "c").rename(final)
    return final
