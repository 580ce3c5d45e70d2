"""Parts of a TOML document as typed data, with errors that name file and key. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from stackctl.errors import InvalidInput, did_you_mean

T = TypeVar("T")


def table(document: Mapping[str, Any], key: str, where: str) -> list[tuple[str, Any]]:
    """The rows of a table by name; none if the document lacks it.

    Raises:
        InvalidInput: It is no table.
    """
    rows = document.get(key, {})
    if not isinstance(rows, dict):
        raise InvalidInput("must be a table", where=f"{where}: {key}")
    return list(rows.items())


def known_keys(row: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """See that a table has no other keys than the known ones.

    Raises:
        InvalidInput: It has; says which one was likely meant.
    """
    for key in row:
        if key not in known:
            raise InvalidInput("this key has no meaning here", where=f"{where}: {key}", hint=did_you_mean(key, known))


def convert(row: object, kind: type[T], where: str) -> T:
    """A table as a value of a type.

    Raises:
        InvalidInput: A key has no meaning, is missing, or has a value of the wrong type.
    """
    if isinstance(row, dict):
        for key in row:
            fields = getattr(kind, "__struct_fields__", ())
            if key not in fields:
                raise InvalidInput(
                    "this key has no meaning here", where=f"{where}.{key}", hint=did_you_mean(key, fields)
                )
    try:
        return msgspec.convert(row, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise InvalidInput(_plain(message), where=where + path.rstrip("`")) from None


def _plain(message: str) -> str:
    return message.replace("Object missing required field", "missing key").replace("`", "'")
