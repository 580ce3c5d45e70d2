"""What errors and programs tell people to type is what the command line takes."""

from __future__ import annotations

import re
from pathlib import Path

import click

from stackctl.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[4]
_TOLD = re.compile(r"stackctl ((?:[a-z]+ )+)([^`\"'()|;\n]*)")


def told() -> list[tuple[str, str, str]]:
    """File, command and option of each `stackctl COMMAND … --option` in the sources, before what goes to a trainer."""
    found = set()
    for path in (*(ROOT / "stackctl").rglob("*.py"), *(ROOT / "images" / "stackrt").rglob("*.py")):
        for words, rest in _TOLD.findall(path.read_text()):
            command = words.split()[0]
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", f" {rest} ".partition(" -- ")[0]):
                found.add((str(path.relative_to(ROOT)), command, option))
    return sorted(found)


def test_options_that_are_named_are_there() -> None:
    rows = told()
    assert len(rows) > 20
    for path, name, option in rows:
        assert name in COMMANDS, f"{path}: stackctl {name}"
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        if not isinstance(command, click.Group):
            known = {text for parameter in command.params for text in (*parameter.opts, *parameter.secondary_opts)}
            assert option in known | {"--help"}, f"{path}: stackctl {name} {option}"
