"""Pin base images by their digests, as a registry tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stackctl.engines import image_registry
from stackctl.errors import StackError
from stackctl.images.schema import Base
from stackctl.images.settings import Settings, at_registry


def pin(bases: Mapping[str, Base], settings: Settings, say: Callable[[str], None]) -> str:
    """The text of images/locks/bases.toml; empty if no digest is known.

    Where no registry answers, a base keeps the digest that it had.

    Args:
        say: Is told of each base whose digest cannot be had.
    """
    known = {name: _digest(base, settings, say) for name, base in bases.items()}
    rows = [
        f'\n[{name}]\nimage = "{base.image}"\ndigest = "{known[name]}"\n' for name, base in bases.items() if known[name]
    ]
    return "".join(["# Digests of base images. Made by `stackctl lock`; do not edit.\n", *rows]) if rows else ""


def _digest(base: Base, settings: Settings, say: Callable[[str], None]) -> str:
    try:
        there = image_registry.look_up(at_registry(base.image, settings))
    except StackError as error:
        say(f"note: {base.image}: no digest from a registry: {error.message}")
        return base.digest
    if there is None:
        say(f"note: {base.image}: the registry has no such image")
    return there.digest if there else base.digest
