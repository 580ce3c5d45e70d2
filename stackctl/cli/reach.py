"""`stackctl exec`, `shell`, `forward`: into a run."""

from __future__ import annotations

import sys

import click

from stackctl.cli import complete, following, options
from stackctl.errors import InvalidInput
from stackctl.runs import known
from stackctl.runs.backends.base import Where
from stackctl.runs.handle import RunHandle

RUN = click.argument("name", metavar="RUN", shell_complete=complete.runs)
RANK = click.option("--rank", type=int, default=0, show_default=True, metavar="R", help="Beside which rank.")


@click.command("exec", cls=options.JobCommand)
@RUN
@options.cluster_options
@RANK
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal, as an editor or `top` needs.")
def exec_(name: str, namespace: str | None, context: str | None, rank: int, tty: bool) -> None:
    """Run a command beside a rank of a run: its environment, its working folder.

    The command stands behind `--`. Standard input, output and error are ours, and so is its exit code.

    \b
    Examples:
      stackctl exec gpt-1122-031500 -- nvidia-smi
      stackctl exec gpt-1122-031500 --rank 3 -- sh -c 'ls $STACK_OUT'
    """
    command = options.rest()
    if not command:
        hint = "put it behind `--`, as `-- nvidia-smi`; `stackctl shell` opens a shell"
        raise InvalidInput("there is no command", where="stackctl exec", hint=hint)
    sys.exit(_find(name, namespace, context).execute(rank, command, tty=tty))


@click.command()
@RUN
@options.cluster_options
@RANK
def shell(name: str, namespace: str | None, context: str | None, rank: int) -> None:
    """Open a shell beside a rank of a run: its environment, its working folder.

    It is bash, or sh where there is none. Without a terminal it reads commands from standard input.
    """
    sys.exit(_find(name, namespace, context).execute(rank, tty=True))


@click.command()
@RUN
@click.argument("port", metavar="[LOCAL:]PORT")
@options.cluster_options
@RANK
def forward(name: str, port: str, namespace: str | None, context: str | None, rank: int) -> None:
    """Reach a port of a run from here: TensorBoard, say.

    The port is that of a rank's node, also where its server listens on 127.0.0.1 only. LOCAL is another number on this
    machine; 0 takes one that is free.

    \b
    Examples:
      stackctl forward gpt-1122-031500 6006
      stackctl forward gpt-1122-031500 8080:6006 --rank 8
    """
    before, _, behind = port.rpartition(":")
    number, local = _number(behind, port, 1), _number(before, port, 0) if before else None
    with _find(name, namespace, context).forward(rank, number, local=local) as forwarded:
        following.tell(forwarded.text)
        try:
            forwarded.stay()
        except KeyboardInterrupt:
            sys.exit(130)


def _number(text: str, port: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= 65535):
        raise InvalidInput("is no port: give PORT or LOCAL:PORT, from 1 to 65535", where=port)
    return int(text)


def _find(name: str, namespace: str | None, context: str | None) -> RunHandle:
    return known.find(name, Where(namespace, context), following.tell)
