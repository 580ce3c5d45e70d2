"""`stackctl list`, `status`, `logs`, `explain`, `wait`, `cancel`."""

from __future__ import annotations

import click

from stackctl.cli import complete, following, options
from stackctl.errors import InvalidInput
from stackctl.runs import known, store, summary
from stackctl.runs.backends.base import Where
from stackctl.runs.handle import Lines, RunHandle, Told
from stackctl.runs.patience import bounded

RUN = click.argument("name", metavar="RUN", shell_complete=complete.runs)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list")
@options.cluster_options
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="The cluster's runs of all namespaces.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="The newest so many; 0: all.")
@JSON
def list_(namespace: str | None, context: str | None, everywhere: bool, limit: int, as_json: bool) -> None:
    """List runs: those of this machine, and those on the cluster.

    Runs on the cluster are those of one namespace, whoever submitted them.
    """
    runs = known.runs(Where(namespace, context, everywhere), following.tell)
    _show(summary.listed(runs[:limit] if limit else runs), as_json)


@click.command()
@RUN
@options.cluster_options
@JSON
def status(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Show how a run fares: its state and attempt, and each node's."""
    _show(_find(name, namespace, context).status(), as_json)


@click.command()
@RUN
@options.cluster_options
@click.option("--rank", type=int, metavar="R", help="Only this rank's lines.")
@click.option("--node", type=int, metavar="N", help="Only this node's lines.")
@click.option("--attempt", type=click.IntRange(1), metavar="K", help="Of this attempt. [default: the newest]")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
def logs(
    name: str,
    namespace: str | None,
    context: str | None,
    rank: int | None,
    node: int | None,
    attempt: int | None,
    follow: bool,
) -> None:
    """Print what the ranks print, each line behind its rank.

    Followed, the lines are also kept in the run's folder. Where pods have gone, their lines are read from the volume
    for outputs, if the run has one.
    """
    if follow and attempt:
        raise InvalidInput("an attempt that is over cannot be followed", where="--follow --attempt")
    for line in _find(name, namespace, context).logs(Lines(rank, node, attempt), follow=follow):
        following.put(line)


@click.command()
@RUN
@options.cluster_options
@JSON
def explain(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Say in a paragraph why a run waits or has failed, with the evidence."""
    _show(_find(name, namespace, context).explain(), as_json)


@click.command()
@RUN
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="How long to wait. [default: to its end]",
)
@options.cluster_options
def wait(name: str, timeout: float | None, namespace: str | None, context: str | None) -> None:
    """Wait until a run has ended; fail if it failed, and say why. Exit code 124: it goes on after --timeout."""
    with bounded(name, timeout):
        following.until_end(_find(name, namespace, context), follow=False)


@click.command()
@RUN
@options.cluster_options
def cancel(name: str, namespace: str | None, context: str | None) -> None:
    """Stop a run on a cluster, and remove it with all that belongs to it.

    Its ranks have the time of --grace to write a checkpoint. What was kept in the run's folder stays there.
    """
    click.echo(_find(name, namespace, context).cancel())


def _find(name: str, namespace: str | None, context: str | None) -> RunHandle:
    return known.find(name, Where(namespace, context), following.tell)


def _show(told: Told, as_json: bool) -> None:
    click.echo(store.to_json(told.data) if as_json else told.text, nl=not as_json)
