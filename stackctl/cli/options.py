"""The words that describe a job: shared by every command that takes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from stackctl.cli import complete, following
from stackctl.cli.sections import Sectioned
from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs.job import Job
from stackctl.runs import asking
from stackctl.runs.asked_before import CHECKS
from stackrt.contract import BINDS, TIMEOUT
from stackrt.frameworks import FRAMEWORKS

F = TypeVar("F", bound=Callable[..., Any])

_REST, JOB_FILE = "stackctl.rest", "stackctl.job_file"
"""Where a command's context has what followed `--`, and the job file if one was read."""


class JobCommand(Sectioned):
    """A command whose line may end in `-- WORDS…`, kept apart from its own arguments and options; or a job file."""

    bare: ClassVar[Mapping[str, str]] = {}
    """Parameter -> the word that it means alone, as a flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut the line at the first `--`, parse the front as click does, and fill up from the job file."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[_REST] = tuple(args[cut + 1 :])
            args = args[:cut]
        left = super().parse_args(ctx, args)
        if JOB_FILE in ctx.meta:
            from stackctl.cli import job_file

            ctx.params["words"], ctx.meta[_REST] = job_file.fill(ctx, ctx.params["words"], ctx.meta.get(_REST, ()))
        return left

    def invoke(self, ctx: click.Context) -> Any:
        """As click's; a value of the job file that a check refuses is told with its line."""
        try:
            for option in self.params:
                not_empty(ctx, option, ctx.params.get(str(option.name)))
            return super().invoke(ctx)
        except InvalidInput as error:
            if JOB_FILE in ctx.meta:
                from stackctl.cli import job_file

                job_file.locate(ctx, error)
            raise

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line, with what may follow `--`."""
        return [*super().collect_usage_pieces(ctx), "[-- ARGS…]"]


def not_empty(_ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuse an empty text, as `--queue "$QUEUE"` gives where that is not set: it would count as not given.

    Raises:
        InvalidInput: It is empty.
    """
    if value == "":
        raise InvalidInput("is empty", where=option.opts[-1], hint="leave it out, or give a value")
    return value


def rest() -> tuple[str, ...]:
    """What followed `--` on the command line."""
    found: tuple[str, ...] = click.get_current_context().meta.get(_REST, ())
    return found


def _read_file(ctx: click.Context, _option: click.Parameter, path: Path | None) -> None:
    if path is not None:
        from stackctl.cli import job_file

        ctx.meta[JOB_FILE] = job_file.load(ctx, path)


_JOB_OPTIONS = (
    click.argument("words", nargs=-1, metavar="[WORKLOAD]", shell_complete=complete.workloads),
    click.option(
        "--file",
        "-f",
        is_eager=True,
        expose_value=False,
        callback=_read_file,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A job file, in TOML: its keys are these options; what stands on the command line wins.",
    ),
    click.option("--nodes", type=int, default=1, show_default=True, metavar="N", help="Number of nodes."),
    click.option("--procs", type=int, metavar="P", help="Ranks on each node, on the CPU. [default: 1]"),
    click.option("--gpus", type=int, default=0, metavar="G", help="GPUs on each node, with a rank for each."),
    click.option("--image", metavar="NAME", help="Image of the catalog, or any image. [default: the workload's]"),
    click.option(
        "--framework",
        type=click.Choice(list(FRAMEWORKS)),
        help="Whose variables the ranks of your own command get. [default: the image's; torch]",
    ),
    click.option("--name", metavar="NAME", help="Name of the run. [default: workload and time]"),
    click.option("--seed", type=int, metavar="S", help="Seed: a workload's --seed, or SEED for your own command."),
    click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Environment of the ranks; NAME alone: yours."),
    click.option(
        "--bind",
        type=click.Choice(BINDS),
        default="auto",
        show_default=True,
        help="Keep each rank to the CPUs near its GPU.",
    ),
    click.option(
        "--timeout",
        type=int,
        default=TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="How long nodes wait for one another at the start.",
    ),
    click.option(
        "--grace",
        type=int,
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="How long ranks may take to end when the job is stopped.",
    ),
)

JOB_PARAMETERS = ("nodes", "procs", "gpus", "image", "framework", "seed", "env", "bind", "timeout", "grace")
"""The options that a job is made of; its name and folder are the run's."""


def job_options(command: F) -> F:
    """Add the options that describe a job."""
    for option in reversed(_JOB_OPTIONS):
        command = option(command)
    return command


_CLUSTER_OPTIONS = (
    click.option(
        "-n", "--namespace", callback=not_empty, metavar="NAME", help="Namespace. [default: the kubeconfig's]"
    ),
    click.option(
        "--context", callback=not_empty, metavar="NAME", help="Context of the kubeconfig. [default: the current one]"
    ),
)


def cluster_options(command: F) -> F:
    """Add the options that say which cluster and namespace."""
    for option in reversed(_CLUSTER_OPTIONS):
        command = option(command)
    return command


_POD_OPTIONS = (
    click.option("--cpu", metavar="AMOUNT", help="CPU cores that a node asks for, as 8 or 500m."),
    click.option("--cpu-limit", metavar="AMOUNT", help="CPU cores that a node may use. [default: all that are idle]"),
    click.option("--memory", metavar="AMOUNT", help="Memory that a node asks for and may use, as 64Gi."),
    click.option("--ephemeral-storage", metavar="AMOUNT", help="Disk that a node asks for and may use, as 100Gi."),
    click.option("--shm", metavar="AMOUNT", help="Size of /dev/shm. [default: 1Gi a rank]"),
    click.option("--queue", metavar="NAME", help="Kueue's queue to wait in."),
    click.option(
        "--topology",
        metavar="LABEL[:preferred]",
        help="With --queue: nodes that share this label's value, as a rack's; all, or as many as can be.",
    ),
    click.option("--priority", metavar="CLASS", help="Priority class of the pods."),
    click.option(
        "--profile",
        default="generic",
        show_default=True,
        metavar="NAME|FILE",
        shell_complete=complete.profiles,
        help="What the cluster is like: aks, eks, generic, gke, or a TOML file of your own.",
    ),
    click.option("--preflight/--no-preflight", default=True, help="Check permissions, claims, quota and room first."),
    click.option(
        "--skip-check",
        multiple=True,
        type=click.Choice(list(CHECKS)),
        metavar="NAME",
        help=f"Leave one of these checks out: {', '.join(CHECKS)}. May be repeated.",
    ),
)

POD_PARAMETERS = ("cpu", "cpu_limit", "memory", "ephemeral_storage", "shm", "queue", "topology", "priority")
"""Those that a placement takes as they are."""


def pod_options(command: F) -> F:
    """Add the options that say how the pods of a cluster are placed."""
    for option in reversed(_POD_OPTIONS):
        command = option(command)
    return command


def split_words(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The workload's name (empty for a command of the user's own), and what followed `--`.

    Raises:
        InvalidInput: More than a workload's name stands before `--`.
    """
    if len(words) > 1:
        raise InvalidInput(
            f"{words[1]!r} is not expected here",
            hint=f"commands go behind `--`: {click.get_current_context().command_path} … -- {' '.join(words)}",
        )
    arguments = rest()
    if words:
        return words[0], arguments
    return ("", arguments) if arguments else ("gpt", ())


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` pairs as a dictionary; `NAME` alone takes the caller's own value.

    Raises:
        InvalidInput: A name alone is not set here.
    """
    chosen: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            if name not in os.environ:
                raise InvalidInput("is not set in your environment", where=f"--env {name}", hint="give NAME=VALUE")
            value = os.environ[name]
        chosen[name] = value
    return chosen


def free_name(words: tuple[str, ...], *, for_cluster: bool = False) -> str:
    """A name from what is run and when; a number behind it where several runs start within one second."""
    return asking.free_name(*split_words(words), for_cluster=for_cluster)


def job(words: tuple[str, ...], name: str, given: Mapping[str, Any], *, containers: bool) -> Job:
    """The job that a command line describes.

    Args:
        containers: Its ranks are in containers: their command goes into a manifest, and a GPU that was not asked for
            is not there.
    """
    workload, arguments = split_words(words)
    if containers:
        jobs.check_text(arguments)
    plain = {key: given[key] for key in JOB_PARAMETERS if key not in ("env", "framework")}
    return jobs.make(
        name=name,
        workload=workload,
        arguments=arguments,
        device=given.get("device") or ("cpu" if containers and not given["gpus"] else None),
        framework=asking.framework(given["image"], given["framework"], workload, following.tell),
        env=environment(given["env"]),
        **plain,
    )
