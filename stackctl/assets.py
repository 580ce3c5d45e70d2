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
