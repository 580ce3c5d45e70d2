"""The entry point: lazy commands, and the one place where an error is printed."""

from __future__ import annotations

import codecs
import errno
import importlib
import io
import os
import re
import signal
import sys
from typing import Any

import click

from stackctl import __version__, folders
from stackctl.errors import StackError
from stackrt.signals import STOPS

COMMANDS = {
    "build": ("stackctl.cli.build", "Build images, and say what came of it."),
    "cancel": ("stackctl.cli.watch", "Stop a run on a cluster, and remove it with all that belongs to it."),
    "completion": ("stackctl.cli.completion", "Print the completion script of a shell."),
    "data": ("stackctl.cli.data", "Fetch data sets of pictures, and look after them."),
    "exec": ("stackctl.cli.reach", "Run a command beside a rank of a run: its environment, its working folder."),
    "explain": ("stackctl.cli.watch", "Say in a paragraph why a run waits or has failed, with the evidence."),
    "forward": ("stackctl.cli.reach", "Reach a port of a run from here: TensorBoard, say."),
    "images": ("stackctl.cli.images", "Show the image matrix."),
    "list": ("stackctl.cli.watch", "List runs: those of this machine, and those on the cluster."),
    "lock": ("stackctl.cli.lock", "Resolve an image's packages into hashed locks."),
    "logs": ("stackctl.cli.watch", "Print what the ranks print, each line behind its rank."),
    "render": ("stackctl.cli.render", "Write the Dockerfiles and Compose files from their data."),
    "run": ("stackctl.cli.run", "Run a job here, as processes or in Compose."),
    "sbom": ("stackctl.cli.sbom", "Print the bill of materials of an image, as CycloneDX JSON."),
    "serve": ("stackctl.cli.serve", "Answer requests for a trained model, here, in Compose or on Kubernetes."),
    "shell": ("stackctl.cli.reach", "Open a shell beside a rank of a run: its environment, its working folder."),
    "status": ("stackctl.cli.watch", "Show how a run fares: its state and attempt, and each node's."),
    "submit": ("stackctl.cli.submit", "Run a job on a Kubernetes cluster."),
    "test": ("stackctl.cli.test", "Test an image, and this machine with it: is it fit to train?"),
    "validate": ("stackctl.cli.validate", "Check that files and images are what they should be."),
    "wait": ("stackctl.cli.watch", "Wait until a run has ended; fail if it failed, and say why."),
    "wheelhouse": ("stackctl.cli.wheelhouse", "Collect all that a build fetches into a folder."),
    "workloads": ("stackctl.cli.run", "Show the reference jobs that come with the stack."),
}
"""Name -> module and one line of help. Listed here so that `stackctl --help` imports none of the modules."""


_ATTRIBUTES = {"exec": "exec_", "list": "list_"}
"""Where a command's name is one of Python's own."""

COMPLETE = "_STACKCTL_COMPLETE"
"""The variable that is set where a shell completes a line."""


class _ReaderGone(Exception):
    """The reader of our output (`| head`) has gone: nothing is left to say, and nobody to say it to."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def main(self, *args: Any, **given: Any) -> Any:
        """As click's, with a home for a uid without a name, if nobody says which: as Docker and login do."""
        folders.need_home()
        return super().main(*args, **given)

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, which for a reader that has gone would exit with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command's name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(
            importlib.import_module(COMMANDS[cmd_name][0]), _ATTRIBUTES.get(cmd_name, cmd_name)
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command list of `--help`, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest known command where there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from stackctl.errors import did_you_mean

            raise click.UsageError(f"no command is named {args[0]!r}; {did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stackctl", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Build GPU training images and run one job anywhere.

    \b
    Start here:
      stackctl run gpt --nodes 2 --procs 2               train a small GPT on this machine
      stackctl run --nodes 2 -- python mine.py           run your own script, one rank a node
      stackctl build pytorch --variant cpu               build the image
      stackctl run gpt --nodes 2 --procs 2 --on compose  the same job in containers
      stackctl test pytorch                              is the image, and this machine, fit to train?

    Exit codes: 0 done; 1 the job, build or check failed; 2 wrong usage; 3 something is missing on this machine;
    4 the name is taken; 124 `wait --timeout` is over; 130 interrupted.
    """


def main() -> None:
    """Run the command line; print an expected error once, without a traceback, and exit with its code."""
    debug = "--debug" in sys.argv[1:]
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(_AS_IT_IS, _as_it_is)
        sys.stdout.reconfigure(errors=_AS_IT_IS)
    code: object
    try:
        code = cli.main(standalone_mode=False, complete_var=COMPLETE)
    except SystemExit as ended:
        code = ended.code
    except _ReaderGone:
        code = 0
    except (KeyboardInterrupt, click.exceptions.Abort):
        code = _interrupted()
    except click.ClickException as error:
        if COMPLETE not in os.environ:  # else somebody has typed a tab: an error would be in the middle of the line
            error.show()
        code = error.exit_code
    except Exception as error:
        if debug:
            raise
        code = 1 if COMPLETE in os.environ else _explain(error)
    _hear_no_more()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails as it flushes at its own end
    sys.exit(code if isinstance(code, int) else 0)


_AS_IT_IS = "stackctl-as-it-is"


def _as_it_is(error: UnicodeError) -> tuple[str | bytes, int]:
    """Print the bytes of a file's name that is no text, and what the terminal's encoding lacks as a question mark."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.replace_errors(error)


def _explain(error: Exception) -> int:
    if isinstance(error, StackError):
        return _say(str(error), error.exit_code)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = error.filename or ("a disk that we write to" if full else "the system")
        return _say(f"{where}: {error.strerror or error}", 3)
    if isinstance(error.__cause__, KeyboardInterrupt):  # Python wraps one that comes while it makes a class
        return _interrupted()
    return _say(f"{type(error).__name__}: {error}\n  this is a fault of stackctl; --debug shows where", 1)


def _interrupted() -> int:
    _hear_no_more()
    return _say("interrupted", 130)


def _hear_no_more() -> None:
    """Ignore further stops: Python, as it ends, lets go of its handlers, and one more Ctrl-C would kill it."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _say(text: str, code: int) -> int:
    plain = bool(os.environ.get("NO_COLOR"))  # https://no-color.org
    click.secho("error: ", fg="red", bold=True, nl=False, err=True, color=False if plain else None)
    click.echo(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), err=True)  # what others have said may hold some
    return code
