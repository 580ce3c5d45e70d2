"""`stackctl run` and `stackctl workloads`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from stackctl import folders
from stackctl.cli import following, options
from stackctl.errors import InvalidInput, JobFailed, NameTaken
from stackctl.jobs.job import Job
from stackctl.runs import backends, places, store
from stackctl.runs.backends.base import Request
from stackctl.runs.handle import Outcome
from stackrt.contract import PORT


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def workloads(as_json: bool) -> None:
    """Show the reference jobs that come with the stack."""
    from stackctl.jobs import workloads as table

    rows = table.load()
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    for name, row in rows.items():
        click.echo(f"{name}  {row.summary} (image {row.image})")


@click.command(cls=options.JobCommand)
@options.job_options
@click.option(
    "--on",
    "backend",
    type=click.Choice([name for name, row in backends.BACKENDS.items() if row.run]),
    help="Where: processes on this machine, or containers. [default: local; of a resumed run: where it was]",
)
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Folder of the run. [default: in the run store]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of node 0's launcher. [default: the first free from {PORT}]"
)
@click.option("--resume", is_flag=True, help="Go on with the run of this --name or --out, from its last checkpoint.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON; ranks then print to standard error.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    backend: str | None,
    name: str | None,
    out: str | None,
    port: int | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Run a job here, as processes or in Compose.

    With a WORKLOAD's name, what follows `--` are its arguments; without one it is your own command; with neither,
    the reference GPT runs. Each run has a folder with its job, a log for each rank, metrics and results.

    \b
    Examples:
      stackctl run gpt --nodes 2 --procs 2
      stackctl run gpt --nodes 2 --procs 2 --on compose -- --steps 200 --data my.txt
      stackctl run --nodes 2 --procs 4 -- python mine.py
      stackctl run -f job.toml
      stackctl run --resume --name gpt-1122-031500
    """
    if resume:
        folder = _folder(name, out)
        job = _job_to_resume(ctx, folder, words)
        backend = _backend_to_resume(folder, backend)
    else:
        backend = backend or "local"
        run_name = name or options.free_name(words)
        job = options.job(words, run_name, given, containers=backends.row(backend).containers)
        folder = _folder(run_name, out)
    workdir = _workdir(folder) if resume else folders.here()
    asked = Request(job=job, folder=folder, workdir=workdir, port=port, resume=resume, quiet=as_json)
    if dry_run:
        told = backends.load(backend).plan(asked, following.tell)
        click.echo(store.to_json(told.data) if as_json else told.text, nl=not as_json)
        return
    if not (resume or words or options.rest()):
        following.tell("no workload and no command: running the reference workload, gpt")
    while True:
        try:
            started = backends.load(backend).start(asked, following.tell)
            break
        except NameTaken:
            if name or out:
                raise
            # Another run has started within this second, and has taken the name that we made up.
            job = msgspec.structs.replace(job, name=options.free_name(words))
            asked = msgspec.structs.replace(asked, job=job, folder=_folder(job.name, None))
    _report(started.wait(None if as_json else following.put), as_json)


def _folder(name: str | None, out: str | None) -> Path:
    """The run's folder: --out, or the name's in the run store."""
    if out:
        return Path(out).absolute()
    if name:
        home = store.home(os.environ)
        if not (home / name).exists() and places.on_clusters(home, name):
            hint = "choose another, or submit it again"
            raise NameTaken("this name is that of a run on a cluster", where=f"--name {name}", hint=hint)
        return home / name
    raise InvalidInput("which run?", where="--resume", hint="name it with --name or --out")


def _job_to_resume(ctx: click.Context, folder: Path, words: tuple[str, ...]) -> Job:
    """The job of a run that exists; what a job is made of cannot be given anew."""
    given = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
    fixed = [name for name in options.JOB_PARAMETERS if ctx.get_parameter_source(name) in given]
    if words or options.rest() or fixed:
        what = "the command" if words or options.rest() else f"--{fixed[0]}"
        raise InvalidInput(
            f"a resumed run has a job already, so {what} cannot be given",
            where="--resume",
            hint=f"it goes on as {folder / 'job.json'} says; leave it out, or start another run",
        )
    return store.read_job(folder)


def _backend_to_resume(folder: Path, given: str | None) -> str:
    """Where a run goes on: where it was, unless somebody says otherwise. Its image and environment are of there."""
    record = store.read_record(folder)
    if record and not backends.row(record.backend).run:
        raise InvalidInput("this run was one of a cluster", where=str(folder), hint="submit it again")
    return given or (record.backend if record else "local")


def _workdir(folder: Path) -> Path:
    """The folder that a run was started in, which its command may mean by `./`; ours, if it was not written down."""
    record = store.read_record(folder)
    if record is None or not record.workdir:
        return folders.here()
    if not os.path.isdir(record.workdir):  # noqa: PTH112 - pathlib's raises where we may not look
        raise InvalidInput(
            f"the folder that this run was started in has gone: {record.workdir}",
            where=str(folder),
            hint="put it back, or start another run",
        )
    return Path(record.workdir)


def _report(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        click.echo(store.to_json(outcome.data).decode(), nl=False)
    if outcome.state not in ("succeeded", "stopped"):
        raise JobFailed(outcome.text, hint=outcome.hint)
    try:
        if not as_json:
            click.echo(outcome.text)
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk: what became of the job is not told by that
        following.tell(f"note: standard output: {error.strerror}")
    finally:
        if outcome.state == "stopped":
            sys.exit(130)
