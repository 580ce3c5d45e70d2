"""`stackctl list`, `status`, `logs`, `explain`, `wait`, `cancel`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from stackctl.cli import complete, keeping, options
from stackctl.engines import kubeconfig
from stackctl.errors import InvalidInput, JobFailed, StackError
from stackctl.runs import observe, store, summary
from stackctl.runs.settle import settled
from stackctl.runs.states import ENDED, WAITS
from stackctl.runs.store import Record

RUN = click.argument("name", metavar="RUN", shell_complete=complete.runs)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list")
@options.cluster_options
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="The newest so many; 0: all.")
@JSON
def list_(namespace: str | None, context: str | None, limit: int, as_json: bool) -> None:
    """List runs: those of this machine, and those on the cluster.

    Runs on the cluster are those of one namespace, whoever submitted them.
    """
    home = store.home(os.environ)
    kept = [settled(home / record.name, record) for record in store.records(home)]
    chosen = kubeconfig.current(os.environ, context or "")
    place = (chosen.name, namespace or chosen.namespace)
    rows = {record.name: _row(record) for record in kept}
    if chosen.name or namespace:
        from stackctl.runs import listing

        try:
            there = listing.states(place[0], place[1])
        except StackError as error:
            click.echo(f"note: {error.message}; states are those last seen", err=True)
        else:
            mine = {record.name for record in kept if (record.context, record.namespace) == place}
            for name in mine - there.keys():
                if rows[name]["state"] == "running":
                    rows[name]["state"] = "gone"
            for name, (state, created) in there.items():
                if name in mine or name not in rows:
                    where = {"backend": "kubernetes", "namespace": place[1]}
                    started = rows.get(name, {}).get("started") or created
                    rows[name] = {"name": name, "state": state, "started": started, **where}
    shown = sorted(rows.values(), key=lambda row: row["started"], reverse=True)
    shown = shown[:limit] if limit else shown
    if as_json:
        _json(shown)
        return
    _table([("NAME", "STATE", "WHERE", "STARTED"), *((r["name"], r["state"], _where(r), r["started"]) for r in shown)])


@click.command()
@RUN
@options.cluster_options
@JSON
def status(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Show how a run fares: its state and attempt, and each node's."""
    found = _find(name, namespace, context)
    if isinstance(found, Path):
        record = keeping.settle(found)
        if as_json:
            _json({"run": record, "result": store.read_json(found / "result.json"),
                   "failure": store.read_json(found / "failure.json")})  # fmt: skip
        else:
            click.echo(keeping.text(found, record))
        return
    from stackctl.cli import attend
    from stackctl.runs import watch

    job, pods = watch.look(found)
    now = observe.view(job, pods)
    if now.state in ENDED and len(now.nodes) < found.job.nodes:
        kept = keeping.of_job(found, job)
        now = observe.with_kept(now, kept.attempt, kept.json("result.json"), kept.json("failure.json")) if kept else now
    record_now = attend.remember(store.home(os.environ) / name, now) if now.state in ENDED else None
    if as_json:
        _json(now)
        return
    attempts = f"attempt {now.attempt} of {now.attempts}"
    click.echo(f"{name}: {now.state}, {attempts} ({summary.size(found.job)}, namespace {now.namespace})")
    if now.state == "failed":
        click.echo(f"  {(now.failure or {}).get('sentence') or now.reason}")
    elif now.state in WAITS:
        click.echo(f"  `stackctl explain {name}` says why it waits")
    rows = [(str(node.node), node.state, node.host or "-", node.pod) for node in now.nodes]
    _table([("NODE", "STATE", "HOST", "POD"), *rows[:_MOST_ROWS]])
    if len(rows) > _MOST_ROWS:
        click.echo(f"… {len(rows) - _MOST_ROWS} more; --json has all")
    if record_now and now.result:
        click.echo("\n".join(summary.training(now.result)))


_MOST_ROWS = 64


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
    found = _find(name, namespace, context)
    if isinstance(found, Path):
        _logs_left(found, rank, node, attempt)
        return
    from stackctl.cli import attend
    from stackctl.runs import watch
    from stackctl.runs.progress import Progress

    nodes = observe.nodes_of(found.job, rank, node)
    if follow:
        attend.show_logs(found, nodes, rank, seen=Progress(found, keeping.tell).look)
        return
    job, pods = watch.look(found)
    gone, newest = watch.gone(job, pods, nodes, attempt)
    if attempt and pods and attempt > newest:
        raise InvalidInput(f"the newest attempt is {newest}", where=f"--attempt {attempt}")
    printed = (line.text for line in watch.lines(found, pods, nodes, attempt) if rank is None or line.rank == rank)
    kept = keeping.logs_of_job(found, job, gone, attempt=attempt, rank=rank) if gone else ()
    if not attend.put_all(itertools.chain(printed, kept)):
        click.echo(f"nothing printed; `stackctl status {name}` says why", err=True)


@click.command()
@RUN
@options.cluster_options
@JSON
def explain(name: str, namespace: str | None, context: str | None, as_json: bool) -> None:
    """Say in a paragraph why a run waits or has failed, with the evidence."""
    found = _find(name, namespace, context)
    if isinstance(found, Path):
        record = keeping.settle(found)
        if as_json:
            _json({"cause": record.state, "failure": store.read_json(found / "failure.json")})
        else:
            click.echo(keeping.text(found, record))
        return
    from stackctl.runs import explain as explaining
    from stackctl.runs import watch

    facts = watch.facts(found)
    now, why = observe.view(facts.job, facts.pods), explaining.explain(facts)
    if now.state == "failed" and len(now.nodes) < found.job.nodes and not now.failure:
        kept = keeping.of_job(found, facts.job)
        if kept:
            facts = facts._replace(kept=kept.json("failure.json"))
            now = observe.with_kept(now, kept.attempt, None, facts.kept)
            why = explaining.explain(facts)
    if as_json:
        _json({"run": name, "state": now.state, "attempt": now.attempt, **why._asdict()})
        return
    click.echo(f"{name}: {now.state}, attempt {now.attempt} of {now.attempts}")
    click.echo(why.text)


@click.command()
@RUN
@options.cluster_options
def wait(name: str, namespace: str | None, context: str | None) -> None:
    """Wait until a run has ended; fail if it failed, and say why."""
    found = _find(name, namespace, context)
    if isinstance(found, Path):
        record = keeping.settle(found)
        if record.state == "running" and record.backend != "kubernetes":
            raise InvalidInput("runs on this machine, in the shell that started it", where=name)
        if record.state != "succeeded":
            raise JobFailed(keeping.text(found, record))
        click.echo(keeping.text(found, record), err=True)
        return
    from stackctl.cli import attend

    attend.until_end(found, follow=False)


@click.command()
@RUN
@options.cluster_options
def cancel(name: str, namespace: str | None, context: str | None) -> None:
    """Stop a run on a cluster, and remove it with all that belongs to it.

    Its ranks have the time of --grace to write a checkpoint. What was kept in the run's folder stays there.
    """
    found = _find(name, namespace, context)
    if isinstance(found, Path):
        record = keeping.record_of(found)
        if record.backend != "kubernetes":
            raise InvalidInput("runs on this machine: stop it with Ctrl-C in the shell that started it", where=name)
        click.echo(f"{name} is not on the cluster any more")
        return
    from stackctl.cli import attend
    from stackctl.runs import watch

    now = watch.view(found)
    watch.cancel(found)
    over = now.state in ENDED
    attend.remember(store.home(os.environ) / name, now if over else msgspec.structs.replace(now, state="stopped"))
    click.echo(f"{name}: {'removed' if over else 'cancelled'}")


def _find(name: str, namespace: str | None, context: str | None) -> Any:
    """The run on its cluster; or its folder, for a run of this machine or one that the cluster has no more.

    Raises:
        InvalidInput: There is no such run.
    """
    folder = store.home(os.environ) / name
    record = store.read_record(folder)
    if record and record.backend != "kubernetes" and not (namespace or context):
        return folder
    chosen = kubeconfig.current(os.environ, context or (record.context if record else ""))
    from stackctl.engines.kube import Cluster
    from stackctl.runs import watch

    place = namespace or (record.namespace if record else "") or chosen.namespace
    try:
        return watch.find(Cluster(chosen.name), name, place)
    except InvalidInput:
        if record is None:
            raise
        return folder


def _logs_left(folder: Path, rank: int | None, node: int | None, attempt: int | None) -> None:
    """Print the logs of a run of this machine, or of one that the cluster has no more."""
    from stackctl.cli import attend

    job, record = store.read_job(folder), keeping.record_of(folder)
    nodes = observe.nodes_of(job, rank, node)
    newest = record.attempt
    if record.claim:
        kept = keeping.of_record(folder, record, attempt=attempt or 0, pattern=keeping.pattern_of(rank))
        newest = kept.attempt if kept else newest
    if not attend.put_all(keeping.log_lines(folder, job, attempt=attempt or newest, rank=rank, nodes=nodes)):
        hint = "those of a run in a cluster are kept by `stackctl logs -f`, or on a --volume"
        where = str(folder / "logs" / f"attempt-{attempt or newest}")
        raise InvalidInput("no such logs were kept", where=where, hint=hint)


def _row(record: Record) -> dict[str, Any]:
    row = {"name": record.name, "state": record.state, "started": record.started, "backend": record.backend}
    return {**row, "namespace": record.namespace} if record.namespace else row


def _where(row: dict[str, Any]) -> str:
    return f"namespace {row['namespace']}" if row.get("namespace") else str(row["backend"])


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _json(value: object) -> None:
    click.echo(store.to_json(value), nl=False)
