"""`stackctl submit`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stackctl.cli import options
from stackctl.engines import kubeconfig
from stackctl.jobs import job as jobs
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.job import Job
from stackctl.jobs.placement import place
from stackctl.runs import store, submission, summary
from stackctl.runs.store import Record
from stackctl.runs.submission import Submission
from stackrt.contract import DEVICES

if TYPE_CHECKING:  # they import the client of the cluster, which a dry run does not need
    from stackctl.engines.kube import Cluster
    from stackctl.runs.watch import Run


class SubmitCommand(options.JobCommand):
    """A job command whose `--dry-run` may say where: `--dry-run=server`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A plain `--dry-run` never takes the next word for its value."""
        cut = args.index("--") if "--" in args else len(args)
        front = ["--dry-run=client" if word == "--dry-run" else word for word in args[:cut]]
        return super().parse_args(ctx, [*front, *args[cut:]])


@click.command(cls=SubmitCommand)
@options.job_options
@options.cluster_options
@options.pod_options
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    help="What ranks train on; cpu with --gpus holds the GPUs unused, to try a cluster out.",
)
@click.option(
    "--secret-env", multiple=True, metavar="NAME=SECRET:KEY", help="Environment from a Secret in the cluster."
)
@click.option(
    "--volume",
    "volumes",
    multiple=True,
    metavar="CLAIM[:PATH][:ro]",
    help="A volume claim; without PATH for outputs and checkpoints, which then outlive the pods.",
)
@click.option("--code", type=click.Path(path_type=Path), metavar="DIR", help="Ship this folder: the nodes start in it.")
@click.option("--retries", type=int, default=3, show_default=True, metavar="N", help="New attempts after a failure.")
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
@click.option("--follow", "-f", is_flag=True, help="Show the logs until the job has ended, then how it ended.")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
def submit(
    words: tuple[str, ...],
    name: str | None,
    namespace: str | None,
    context: str | None,
    dry_run: str | None,
    output: str,
    preflight: bool,
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
      stackctl submit gpt --nodes 4 --gpus 8 --dry-run | kubectl apply -f -
    """
    chosen = kubeconfig.current(os.environ, context or "")
    if not (words or options.rest()):
        click.echo("no workload and no command: the reference workload, gpt", err=True)
    ready = _prepare(words, name, namespace or chosen.namespace, given)
    if dry_run == "client":
        _show(ready.manifests, output)
        return
    from stackctl.engines.kube import Cluster
    from stackctl.runs import submit as submitting

    cluster = Cluster(chosen.name)
    if dry_run == "server":
        _show(submitting.trial(cluster, ready), output)
        return
    run = _submit(cluster, ready, preflight=preflight)
    if follow or wait:
        from stackctl.cli import attend

        attend.until_end(run, follow=follow)


def _submit(cluster: Cluster, ready: Submission, *, preflight: bool) -> Run:
    from stackctl.runs import submit as submitting

    job, namespace = ready.job, ready.placement.namespace
    folder = store.home(os.environ) / job.name
    record = Record(
        name=job.name,
        backend="kubernetes",
        attempt=1,
        started=store.now(),
        image=ready.placement.image,
        namespace=namespace,
        context=cluster.context,
        claim=ready.placement.claim,
        node_choice=kubernetes.node_choice(ready.placement.profile),
    )
    store.free_for(folder, record)
    if preflight:
        from stackctl.runs import preflight as checks

        for note in checks.check(cluster, ready):
            click.echo(f"note: {note}", err=True)
    options.note_registry(ready.placement.image)
    try:
        uid, there = submitting.create(cluster, ready)
    except KeyboardInterrupt:
        # The cluster may have taken the Job, and its answer has not come.
        click.echo(f"\nif {job.name} is there, remove it with: stackctl cancel {job.name} -n {namespace}", err=True)
        raise
    store.submitted(folder, job, record)
    place = f"{summary.size(job)} on {cluster.context or cluster.host}, namespace {namespace}"
    click.echo(f"{job.name}: {'is there already' if there else 'submitted'} ({place})", err=True)
    click.echo(
        f"  stackctl logs -f {job.name}    what the ranks print\n"
        f"  stackctl status {job.name}     how it fares\n"
        f"  stackctl explain {job.name}    why it does not run, or has failed\n"
        f"  stackctl cancel {job.name}     stop and remove it",
        err=True,
    )
    click.echo(job.name)
    from stackctl.runs.watch import Run

    return Run(cluster, job.name, namespace, job, uid)


def _prepare(words: tuple[str, ...], name: str | None, namespace: str, given: Mapping[str, Any]) -> Submission:
    job = _job(words, _free_name(words) if name is None else name, given)
    packed = None
    left = [word for word in options.rest() if not word.startswith(("-", "/")) and os.path.isfile(word)]  # noqa: PTH113 - pathlib's raises for a long word
    if given["code"] is None and left and not job.workload:
        click.echo(f"note: pods see the image's files, not {left[0]} of this folder; ship it with --code .", err=True)
    if given["code"] is not None:
        from stackctl.engines import archive

        packed = archive.pack(given["code"])
        if packed.left_out:
            names = ", ".join(packed.left_out[:3]) + (", …" if len(packed.left_out) > 3 else "")
            click.echo(f"note: git does not track {names}: not shipped", err=True)
    placement = place(
        job,
        namespace=namespace,
        profile=profiles.load(given["profile"]),
        image=options.image(job),
        code=packed.sha256 if packed else "",
        **{key: given[key] for key in _PLACEMENT},
    )
    return submission.prepare(job, placement, packed, os.environ)


_PLACEMENT = (*options.POD_PARAMETERS, "volumes", "secret_env", "retries")


def _job(words: tuple[str, ...], name: str, given: Mapping[str, Any]) -> Job:
    workload, arguments = options.split_words(words)
    jobs.check_text(arguments)
    return jobs.make(
        name=name,
        workload=workload,
        arguments=arguments,
        device=given["device"] or (None if given["gpus"] else "cpu"),
        framework=options.framework(given["image"], given["framework"], workload),
        **{key: given[key] for key in options.JOB_PARAMETERS if key not in ("env", "framework")},
        env=options.environment(given["env"]),
    )


def _free_name(words: tuple[str, ...]) -> str:
    name = options.free_name(words)
    return name if name[0].isalpha() else f"run-{name}"


def _show(manifests: list[kubernetes.Manifest], output: str) -> None:
    click.echo(
        kubernetes.to_yaml(manifests) if output == "yaml" else kubernetes.to_json(manifests), nl=output == "json"
    )
