"""A job file's keys from click's own parameters, and its values as what the command line leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from stackctl.cli.options import JOB_FILE
from stackctl.errors import InvalidInput
from stackctl.jobs import job_file
from stackctl.jobs.job_file import JobFile, Key

OWN = ("file", "help")
"""Options that are no key: the file itself, and help."""


def keys(command: click.Command) -> dict[str, Key]:
    """A command's keys: each of its options has one, under the option's name."""
    bare: Mapping[str, str] = getattr(command, "bare", {})
    return {
        _key(option): _spec(option, bare.get(str(option.name), ""))
        for option in command.params
        if isinstance(option, click.Option) and option.name not in OWN
    }


def schema() -> dict[str, Any]:
    """The file's JSON schema."""
    return job_file.schema({name: keys(command) for name, command in _commands().items()})


def load(ctx: click.Context, path: Path) -> JobFile:
    """Read the file: its values stand in for what the command line leaves open.

    Raises:
        InvalidInput: As `jobs.job_file.read`.
    """
    mine = keys(ctx.command)
    elsewhere = {key: name for name, other in _commands().items() if name != ctx.command.name for key in keys(other)}
    found, unused = job_file.read(path, mine, elsewhere)
    if unused:
        other = elsewhere[unused[0]]
        click.echo(f"note: {path}: for `stackctl {other}`, and not used here: {', '.join(unused)}", err=True)
    options = {_key(option): option for option in ctx.command.params if isinstance(option, click.Option)}
    values = {str(options[key].name): value for key, value in found.values.items() if key in options}
    said = {name: value for name, value in values.items() if value is not None}
    ctx.default_map = {**(ctx.default_map or {}), **said}
    return found


def fill(ctx: click.Context, words: tuple[str, ...], rest: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put in what the file says of the job's words, and of variables that the command line does not name.

    Args:
        words: What stands before `--`.
        rest: What stands behind it.

    Returns:
        Both, from the file where the command line has none.
    """
    found: JobFile = ctx.meta[JOB_FILE]
    specs = keys(ctx.command)
    for option in ctx.command.params:
        name = str(option.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        key = _key(option) if isinstance(option, click.Option) else ""
        if given and key in found.values and specs[key].pairs:
            ctx.params[name] = job_file.merged(ctx.params[name], found.values[key])
    if words:
        return words, rest
    workload = found.values.get("workload")
    behind = found.values.get("command") or found.values.get("arguments") or ()
    return ((workload,) if workload else ()), rest or tuple(behind)


def locate(ctx: click.Context, error: InvalidInput) -> None:
    """Say where in the file a value stands that an option's check refuses."""
    found: JobFile = ctx.meta[JOB_FILE]
    if not error.where.startswith("--"):
        return
    word = error.where.split()[0]
    for option in ctx.command.params:
        from_file = ctx.get_parameter_source(str(option.name)) is ParameterSource.DEFAULT_MAP
        if isinstance(option, click.Option) and word in option.opts and from_file:
            error.where = f"{found.place(_key(option))}: {error.where.removeprefix('--')}"


def _commands() -> dict[str, click.Command]:
    """Those that take a job file."""
    from stackctl.cli.run import run
    from stackctl.cli.submit import submit

    return {"run": run, "submit": submit}


def _key(option: click.Option) -> str:
    return next(text for text in option.opts if text.startswith("--")).removeprefix("--")


def _spec(option: click.Option, bare: str) -> Key:
    metavar, kind = option.metavar or "", option.type
    about: dict[str, Any] = {"many": option.multiple, "help": option.help or ""}
    if option.is_flag:
        return Key(kind="flag", **about)
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        low, high = getattr(kind, "min", None), getattr(kind, "max", None)
        number = "integer" if isinstance(kind, click.types.IntParamType) else "number"
        return Key(kind=number, low=low, high=high, **about)  # type: ignore[arg-type]
    if isinstance(kind, click.Choice):
        return Key(kind="text", choices=tuple(kind.choices), bare=bare, **about)
    path = "always" if isinstance(kind, click.Path) else "maybe" if metavar == "NAME|FILE" else "no"
    return Key(
        kind="text",
        pairs=option.multiple and "=" in metavar.partition(":")[0],
        amount=metavar in ("AMOUNT", "DURATION"),
        path=path,  # type: ignore[arg-type]
        **about,
    )
