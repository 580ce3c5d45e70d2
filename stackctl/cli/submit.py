"""`stackctl submit`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import click

from stackctl.cli import following, options
from stackctl.cli.pod_options import pod_options
from stackctl.jobs.gang import AUTO, WISHES
from stackctl.jobs.via import JOB, VIAS
from stackctl.runs import store
from stackctl.runs.backends.base import ClusterOptions, Request
from stackctl.runs.backends.kubernetes import Kubernetes
from stackrt.contract import DEVICES


class SubmitCommand(options.JobCommand):
    """A job command whose `--dry-run` may say where: `--dry-run=server`."""

    bare: ClassVar[Mapping[str, str]] = {"dry_run": "client"}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A plain `--dry-run` never takes the next word for its value."""
        cut = args.index("--") if "--" in args else len(args)
        front = ["--dry-run=client" if word == "--dry-run" else word for word in args[:cut]]
        try:
            return super().parse_args(ctx, [*front, *args[cut:]])
        except click.BadOptionUsage as error:
            if error.option_name not in ("-f", "--file"):
                raise
            said = f"{error.message} It is a job file; to follow the logs there is --follow."
            raise click.BadOptionUsage(error.option_name, said, ctx) from None


@click.command(cls=SubmitCommand)
@options.job_options
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="What ranks train on; cpu with --gpus holds the GPUs unused, to try a cluster out.",
)
@click.option(
    "--secret-env",
    multiple=True,
    metavar="NAME[=SECRET:KEY]",
    help="Environment from a Secret in the cluster; NAME alone: your value, in a Secret of the run.",
)
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="CLAIM[:PATH][:ro]",
    help="A volume claim; without PATH for outputs and checkpoints, which then outlive the pods.",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="KIND:SOURCE:PATH[:ro]",
    help="host:/FOLDER of the node, claim:NAME/FOLDER, configmap:NAME[/KEY] or secret:NAME[/KEY], seen at PATH.",
)
@click.option("--code", type=click.Path(path_type=Path), metavar="DIR", help="Ship this folder: the nodes start in it.")
@click.option("--code-all", is_flag=True, help="Ship every file of --code but git's own, whether git tracks it or not.")
@click.option(
    "--code-claim",
    metavar="NAME",
    help="Claim for --code. [default: a Secret of the run; for more than 900 KiB packed the claim of the outputs]",
)
@options.cluster_options
@click.option(
    "--via",
    type=click.Choice(VIAS),
    default=JOB,
    show_default=True,
    help="What gives the cluster the job: its own Job, a JobSet, or a TrainJob of Kubeflow.",
)
@options.pod_options
@click.option(
    "--gang",
    type=click.Choice(WISHES),
    default=AUTO,
    show_default=True,
    help="Have the cluster place all nodes at once or none; auto: where it can, and no queue does.",
)
@pod_options
@click.option("--retries", type=int, default=3, show_default=True, metavar="N", help="New attempts after a failure.")
@click.option("--deadline", metavar="DURATION", help="End the job after so long, as 3600 or 12h.")
@click.option("--keep", metavar="DURATION", help="How long what has ended stays in the cluster. [default: 7d]")
@click.option(
    "--dry-run",
    type=click.Choice(["client", "server"]),
    metavar="[client|server]",
    help="Print the manifests and stop; =server has the cluster check them.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Format of a dry run.",
)
@click.option("--follow", is_flag=True, help="Show the logs until the job has ended, then how it ended.")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
def submit(
    words: tuple[str, ...],
    name: str | None,
    dry_run: str | None,
    output: str,
    follow: bool,
    wait: bool,
    **given: Any,
) -> None:
    """Run a job on a Kubernetes cluster.

    With a WORKLOAD's name, what follows `--` are its arguments; without one it is your own command; with neither,
    the reference GPT trains. --gpus and --procs are for each node: 2 nodes x 8 GPUs are 16 ranks. The job runs without
    this command: when a rank or a node fails, all start anew, up to --retries times.

    \b
    Examples:
      stackctl submit --nodes 2 --gpus 8
      stackctl submit --nodes 2 --gpus 8 --volume checkpoints --code . -- python mine.py
      stackctl submit -f job.toml --nodes 4
      stackctl submit gpt --nodes 4 --gpus 8 --dry-run | kubectl apply -f -
    """
    if not (words or options.rest()):
        following.tell("no workload and no command: the reference workload, gpt")
    backend = Kubernetes()
    asked = _asked(words, name, given)
    if dry_run:
        told = (backend.trial if dry_run == "server" else backend.plan)(asked, following.tell)
        click.echo(told.text if output == "yaml" else store.to_json(told.data), nl=False)
        return
    run = backend.start(asked, following.tell)
    click.echo(run.name)
    if follow or wait:
        following.until_end(run, follow=follow)


def _asked(words: tuple[str, ...], name: str | None, given: Mapping[str, Any]) -> Request:
    job = options.job(
        words, options.free_name(words, for_cluster=True) if name is None else name, given, containers=True
    )
    cluster = ClusterOptions(**{field: given[field] for field in ClusterOptions.__struct_fields__})
    return Request(job=job, folder=store.home(os.environ) / job.name, cluster=cluster)
