"""The folder of `--code` on its way into pods: in a Secret of the run, or on a claim if it is too large for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from stackctl import folders
from stackctl.engines import archive, code_tree
from stackctl.engines.archive import Listed, TooLarge
from stackctl.engines.code_tree import Tree
from stackctl.jobs import secret_names
from stackctl.runs.handle import Tell

WORTH_A_TRY = 16 << 20
"""Bytes that may still fit into a Secret when they are packed; more is not packed where there is a claim."""


class Shipped(msgspec.Struct, frozen=True):
    """A folder as it is shipped: packed in base64, or as the tree of files that a claim holds, and its SHA-256."""

    sha256: str
    text: str = ""
    tree: Tree | None = None
    claim: str = ""


def ship(folder: Path, tell: Tell, *, everything: bool, claim: str, other: str) -> Shipped:
    """The folder as it is shipped; tells what is left out of it, and what may be a secret in it.

    Args:
        everything: What git does not track, too.
        claim: Where it goes; empty for a Secret, if that holds it.
        other: The claim that takes it then.

    Raises:
        InvalidInput: It cannot be shipped; says why.
    """
    if not folder.is_absolute():
        folders.here("--code")
    found = archive.look(folder, everything=everything)
    _tell(found, tell)
    if not claim:
        large = other and sum(found.sizes.values()) > WORTH_A_TRY
        try:
            packed = None if large else archive.pack(folder, found)
        except TooLarge:
            if not other:
                raise
            packed = None
        if packed:
            return Shipped(packed.sha256, packed.text)
    tree = code_tree.read(folder, found)
    return Shipped(tree.sha256, tree=tree, claim=claim or other)


def _tell(found: Listed, tell: Tell) -> None:
    if found.left_out:
        tell(f"note: git does not track {some(found.left_out)}: not shipped")
    if found.absent:
        tell(f"note: not shipped, since it is not checked out (git submodule update --init): {some(found.absent)}")
    secret = secret_names.files(tuple(found.sizes))
    if secret:
        tell(f"note: --code ships what may be secrets: {some(secret)} (--secret-env gives values without files)")


def some(names: Sequence[str]) -> str:
    """Names for a person: the first of them."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
