"""Where the catalog, templates, locks and payload lie: in a checkout, or inside the installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets" / "images"
_CHECKOUT = _PACKAGE.parent / "images"


def images_dir() -> Path:
    """The folder that holds catalog.toml, templates, locks and dockerfiles."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def in_checkout() -> bool:
    """True where the generated files can be written back to the repository."""
    return not _INSTALLED.is_dir()


def payload_dir() -> Path:
    """The folder that holds the package `stackrt`, to put on a module search path."""
    return _PACKAGE.parent if _INSTALLED.is_dir() else _CHECKOUT
