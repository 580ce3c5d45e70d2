"""Options in sections: a page of forty is read in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

STARTS = {
    "file": "Job",
    "nodes": "Job",
    "volumes": "Code and data",
    "namespace": "Cluster",
    "cpu": "Amounts, of each node of the job",
    "queue": "Turn and place",
    "profile": "Cluster",
    "gang": "Turn and place",
    "on_nodes": "Turn and place",
    "service_account": "Pods",
    "retries": "Attempts and time",
    "backend": "Where and how",
    "dry_run": "This command",
}
"""Parameter -> the section that it begins; those that follow belong to it, too, so a new option has that of its kin."""


class Sectioned(click.Command):
    """A command whose `--help` shows its options in sections, in the order in which they begin."""

    starts: ClassVar[Mapping[str, str]] = STARTS

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, section by section."""
        title, rows = "Options", dict[str, list[tuple[str, str]]]()
        for parameter in self.get_params(ctx):
            title = self.starts.get(str(parameter.name), title)
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows.setdefault(title, []).append(record)
        for name, lines in rows.items():
            with formatter.section(name):
                formatter.write_dl(lines)
