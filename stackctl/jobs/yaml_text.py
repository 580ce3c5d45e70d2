"""Plain data as YAML text.

PyYAML writes the argument `1e-3` bare, and kubectl takes that for a number. To load it for writing makes
a dry run a seventh longer (bench/startup.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[1-9]\d*[A-Za-z]{1,2}|-{0,2}[A-Za-z_/$](?!.*: |.* #|.*[: ]$).*")
"""What may stand as it is: an amount with its unit, and words with nothing in them that ends a word or a line."""

_OTHER_TYPES = re.compile(r"(?i:true|false|yes|no|on|off|null|y|n)")
"""What YAML takes for a truth value or for nothing; numbers are not `_PLAIN`."""

_ESCAPES = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


def to_yaml(document: Mapping[str, Any]) -> str:
    """Dictionaries, lists, text, whole numbers, truth values and None as YAML, in the order of their keys."""
    return "\n".join(_lines(document)) + "\n"


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from _entry(f"{_scalar(key)}:", below, "" if isinstance(below, list | tuple) else "  ")
    elif isinstance(value, list | tuple) and value:
        for below in value:
            first, *others = _lines(below)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
    else:
        yield _scalar(value)


def _entry(key: str, value: Any, indent: str) -> Iterator[str]:
    if value and isinstance(value, Mapping | list | tuple):
        yield key
        yield from (indent + line for line in _lines(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, list | tuple):
        return "[]"
    return "null" if value is None else str(value).lower()


def _text(text: str) -> str:
    if not text.isprintable():
        return '"' + "".join(map(_escaped, text)) + '"'
    if _PLAIN.fullmatch(text) and not _OTHER_TYPES.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _escaped(sign: str) -> str:
    return _ESCAPES.get(sign) or (sign if sign.isprintable() else f"\\U{ord(sign):08x}")
