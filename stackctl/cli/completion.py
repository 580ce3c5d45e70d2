"""`stackctl completion`: completion scripts, made by click."""

from __future__ import annotations

import click


@click.command(epilog="")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      stackctl completion bash > ~/.local/share/bash-completion/completions/stackctl
      stackctl completion fish > ~/.config/fish/completions/stackctl.fish
    """
    from click.shell_completion import get_completion_class

    from stackctl.cli.main import COMPLETE, cli

    kind = get_completion_class(shell)
    if kind is not None:  # never for the shells that click names itself
        click.echo(kind(cli, {}, "stackctl", COMPLETE).source())
