"""A job in a TOML file: its keys are the options of `run` and `submit`. Pure: text to values, and the file's schema."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from stackctl import folders
from stackctl.errors import InvalidInput, did_you_mean

Kind = Literal["flag", "integer", "number", "text"]

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What a key takes.

    Args:
        many: A list of it.
        pairs: Also a table, of what is `NAME=VALUE` in a list.
        amount: A number will do, as in `cpu = 8`.
        choices: The only words that it may be.
        bare: The word that `true` stands for.
        path: Whether it is a path, which is meant from the file's folder; `maybe` is one with a slash or `.toml`.
    """

    kind: Kind
    many: bool = False
    pairs: bool = False
    amount: bool = False
    choices: tuple[str, ...] = ()
    bare: str = ""
    low: float | None = None
    high: float | None = None
    path: Literal["no", "always", "maybe"] = "no"
    help: str = ""


WORDS: Mapping[str, Key] = {
    "workload": Key(kind="text", help="A workload's name, as `stackctl workloads` lists them."),
    "arguments": Key(kind="text", many=True, help="The workload's arguments: what follows `--`."),
    "command": Key(kind="text", many=True, help="Your own command, in place of a workload: what follows `--`."),
}
"""Keys for what is no option."""


class JobFile(msgspec.Struct, frozen=True):
    """A file that was read: its values by their keys, as the command line has them."""

    path: Path
    text: str
    values: dict[str, Any]

    def place(self, *way: str) -> str:
        """`job.toml:3`: the file, and the line where a key begins."""
        return place(self.path, self.text, way)


def read(path: Path, keys: Mapping[str, Key], elsewhere: Mapping[str, str]) -> tuple[JobFile, list[str]]:
    """Read a job file.

    Args:
        keys: What the command takes, beside WORDS.
        elsewhere: Key -> the other command that takes it.

    Returns:
        The file, and the keys that are for another command.

    Raises:
        InvalidInput: It cannot be read, or has a key that is unknown or a value of the wrong type; says where.
    """
    where = f"--file {path}"
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        hint = "to follow the logs there is --follow" if not path.suffix else ""
        raise InvalidInput(f"cannot be read: {error.strerror}", where=where, hint=hint) from None
    except UnicodeDecodeError:
        raise InvalidInput("is not UTF-8", where=where) from None
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"is no TOML: {error}", where=str(path)) from None
    known = {**keys, **WORDS}
    for name in found:
        if name not in known and name not in elsewhere:
            guess = did_you_mean(name.replace("_", "-"), [*known, *elsewhere])
            raise InvalidInput("there is no such key", where=f"{place(path, text, [name])}: {name}", hint=guess)
    unused = [name for name in found if name not in known]
    values = {name: _value(known[name], value, path, text, name) for name, value in found.items() if name in known}
    if "command" in values and (both := values.keys() & {"workload", "arguments"}):
        where = f"{place(path, text, ['command'])}: command"
        hint = "a workload has `arguments`, and your own command has all in `command`"
        raise InvalidInput(f"does not go with {min(both)}", where=where, hint=hint)
    return JobFile(path, text, values), unused


def place(path: Path, text: str, way: Sequence[str]) -> str:
    """The file, and the line where a key begins: after the last line before it with which the text was whole."""
    lines = text.splitlines()
    whole = 0
    for number in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        for word in way:
            found = found.get(word) if isinstance(found, dict) else None
        if found is not None:
            return f"{path}:{whole + 1}"
        whole = number
    return str(path)


def _value(key: Key, value: Any, path: Path, text: str, name: str) -> Any:
    def wrong(what: str, *way: str) -> InvalidInput:
        shown = ".".join([name, *way])
        return InvalidInput(what, where=f"{place(path, text, [name, *way])}: {shown}")

    if key.pairs and isinstance(value, dict):
        if bad := [part for part in value if "=" in part]:
            raise wrong("a name has no equals sign in it", bad[0])
        return tuple(f"{part}={_word(row, wrong, part)}" for part, row in value.items())
    if key.many:
        if not isinstance(value, list) or not all(isinstance(row, str) for row in value):
            table = f', or a table, as {{ NAME = "VALUE" }}, and not {_told(value)}' if key.pairs else ""
            raise wrong(f'must be a list of texts, as ["…"]{table or f", and not {_told(value)}"}')
        return tuple(_path(key, _chosen(key, row, wrong), path) for row in value)
    return _path(key, _one(key, value, wrong), path)


def _one(key: Key, value: Any, wrong: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key.kind == "flag":
        if not isinstance(value, bool):
            raise wrong(f"must be true or false, and not {_told(value)}")
        return value
    if key.kind in ("integer", "number"):
        if not number or (key.kind == "integer" and not isinstance(value, int)):
            raise wrong(f"must be a number, and not {_told(value)}")
        low, high = key.low, key.high
        if (low is not None and value < low) or (high is not None and value > high):
            bounds = f"from {low:,}" + (f" to {high:,}" if high is not None else "") if low is not None else "smaller"
            raise wrong(f"must be {bounds}, and not {value}")
        return value
    if key.bare and value is True:
        return key.bare
    if key.bare and value is False:
        return None
    if key.amount and number:
        return str(value)
    if not isinstance(value, str):
        raise wrong(f"must be text, and not {_told(value)}")
    return _chosen(key, value, wrong)


def _chosen(key: Key, value: str, wrong: Any) -> str:
    if key.choices and value not in key.choices:
        raise wrong(f"must be one of {', '.join(key.choices)}, and not {value!r}")
    return value


def _word(value: Any, wrong: Any, part: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise wrong(f"must be text, and not {_told(value)}", part)


def _path(key: Key, value: Any, file: Path) -> Any:
    if key.path == "no" or not isinstance(value, str) or not value:
        return value
    if key.path == "maybe" and "/" not in value and not value.endswith(".toml"):
        return value
    return str(file.parent / folders.expanded(value))


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else repr(value)


def schema(commands: Mapping[str, Mapping[str, Key]]) -> dict[str, Any]:
    """The file's JSON schema.

    Args:
        commands: Command -> its keys.
    """
    properties: dict[str, Any] = {name: _typed(key) for name, key in WORDS.items()}
    for name in sorted({name for keys in commands.values() for name in keys}):
        takers = {command: keys[name] for command, keys in commands.items() if name in keys}
        forms = list({msgspec.json.encode(_form(key)): _form(key) for key in takers.values()}.values())
        only = "" if len(takers) == len(commands) else f" For `stackctl {min(takers)}`."
        row = forms[0] if len(forms) == 1 else {"anyOf": forms}
        properties[name] = {**row, "description": f"{next(iter(takers.values())).help}{only}"}
    return {
        "$schema": SCHEMA_ID,
        "title": "A job of stackctl",
        "description": "What `stackctl submit --file` and `stackctl run --file` take.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "not": {"required": ["command"], "anyOf": [{"required": ["workload"]}, {"required": ["arguments"]}]},
    }


def _typed(key: Key) -> dict[str, Any]:
    return {**_form(key), "description": key.help}


def _form(key: Key) -> dict[str, Any]:
    """The schema of a key's value."""
    if key.many:
        rows = {"type": "array", "items": {"enum": [*key.choices]} if key.choices else {"type": "string"}}
        table = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
        return {"anyOf": [rows, table]} if key.pairs else rows
    if key.kind == "flag":
        return {"type": "boolean"}
    if key.kind in ("integer", "number"):
        bounds = {"minimum": key.low, "maximum": key.high}
        return {"type": key.kind, **{name: bound for name, bound in bounds.items() if bound is not None}}
    if key.choices:
        return {"enum": [*key.choices, *([True, False] if key.bare else [])]}
    return {"type": ["string", "number"]} if key.amount else {"type": "string"}


def merged(ours: Iterable[str], theirs: Iterable[str]) -> tuple[str, ...]:
    """`NAME=VALUE` of the command line over those of a file; of the file's those stay that it does not name."""
    given = tuple(ours)
    named = {text.partition("=")[0] for text in given}
    return (*(text for text in theirs if text.partition("=")[0] not in named), *given)
