"""`stackctl run` and `stackctl workloads`."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

import click
import msgspec

from stackctl.cli import options
from stackctl.errors import JobFailed
from stackctl.jobs import job as jobs
from stackctl.jobs.job import Job
from stackctl.runs import store
from stackctl.runs.store import Record


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
    type=click.Choice(["local", "compose"]),
    default="local",
    show_default=True,
    help="Where: processes on this machine, or containers.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the run. [default: in the run store]"
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of node 0's launcher. [default: the first free from 29400]"
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run's folder.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON; ranks then print to standard error.")
def run(
    words: tuple[str, ...],
    nodes: int,
    procs: int | None,
    gpus: int,
    image: str | None,
    name: str | None,
    seed: int | None,
    env: tuple[str, ...],
    timeout: int,
    backend: str,
    out: Path | None,
    port: int | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a job here, as processes or in Compose.

    With a WORKLOAD's name, what follows `--` are its arguments; without one it is your own command; with neither,
    the reference GPT runs. Each run has a folder with its job, a log for each rank, metrics and results.

    \b
    Examples:
      stackctl run gpt --nodes 2 --procs 2
      stackctl run gpt --nodes 2 --procs 2 --on compose -- --steps 200 --data my.txt
      stackctl run --nodes 2 --procs 4 -- python mine.py
    """
    workload, arguments = options.split_words(words)
    stem = workload or Path(arguments[-1] if len(arguments) == 2 else arguments[0]).stem
    run_name = name or (out.name if out and resume else store.new_name(stem, datetime.now()))
    job = jobs.make(
        name=run_name,
        workload=workload,
        arguments=arguments,
        image=image,
        framework=_framework(image),
        nodes=nodes,
        procs=procs,
        gpus=gpus,
        device="cpu" if backend == "compose" and not gpus else None,
        seed=seed,
        env=options.environment(env),
        timeout=timeout,
    )
    folder = out.absolute() if out else store.home(os.environ) / run_name
    if dry_run:
        _show(job, backend, folder, port, as_json)
        return
    if not words and not arguments:
        click.echo("no workload and no command: running the reference workload, gpt", err=True)
    record = _carry_out(job, backend, folder, port, resume=resume, quiet_stdout=as_json)
    _report(job, record, folder, as_json)


def _carry_out(job: Job, backend: str, folder: Path, port: int | None, *, resume: bool, quiet_stdout: bool) -> Record:
    from stackctl.runs import execute

    click.echo(f"{job.name}: {job.nodes} x {job.procs} ranks on {backend}, in {folder}", err=True)
    if backend == "compose":
        return execute.compose(
            job, folder, image=_image(job), workdir=Path.cwd(), resume=resume, quiet_stdout=quiet_stdout
        )
    return execute.local(job, folder, port=_port(port), resume=resume, quiet_stdout=quiet_stdout)


def _report(job: Job, record: Record, folder: Path, as_json: bool) -> None:
    from stackctl.runs import summary

    result = store.read_json(folder / "result.json")
    failed = store.read_json(folder / "failure.json") if record.state == "failed" else None
    if as_json:
        outcome = {"run": record, "folder": str(folder), "result": result, "failure": failed}
        click.echo(msgspec.json.format(msgspec.json.encode(outcome), indent=2))
    if record.state == "failed":
        raise JobFailed(summary.failure(record, folder, failed), hint=f"files of this run: {folder}")
    if not as_json:
        click.echo(summary.text(job, record, folder, result))
    if record.state == "stopped":
        sys.exit(130)


def _show(job: Job, backend: str, folder: Path, port: int | None, as_json: bool) -> None:
    if backend == "compose":
        from stackctl.jobs import compose

        uid, gid = store.container_user()
        mounts = compose.mounts(job, out=str(folder), workdir=str(Path.cwd()))
        document = compose.document(job, image=_image(job), user=f"{uid}:{gid}", mounts=mounts)
        click.echo(
            msgspec.json.format(msgspec.json.encode(document), indent=2) if as_json else compose.to_yaml(document)
        )
        return
    from stackctl.jobs import local

    nodes = local.plan(job, python=sys.executable, out=str(folder), port=_port(port))
    click.echo(msgspec.json.format(msgspec.json.encode(nodes), indent=2) if as_json else local.show(nodes))


def _port(port: int | None) -> int:
    from stackctl.engines.local import free_port

    return port or free_port(jobs.PORT)


def _framework(image: str | None) -> str | None:
    """What ranks in an image of the catalog expect of the launcher; None for another image."""
    from stackctl.images import catalog

    rows = catalog.load().images if image else {}
    return rows[image].launcher if image in rows else None


def _image(job: Job) -> str:
    """The full name of a job's image: of the catalog's, in the variant that fits; another name stays as it is."""
    from stackctl.images import catalog

    rows = catalog.load()
    if job.image not in rows.images:
        return job.image
    prefix = os.environ.get("STACK_IMAGE_PREFIX", catalog.PREFIX)
    return catalog.targets(rows, job.image, "cuda" if job.gpus else "cpu", prefix)[0].tag
