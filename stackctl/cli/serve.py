"""`stackctl serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stackctl.cli import following, options
from stackctl.errors import InvalidInput, JobFailed
from stackctl.jobs import serving
from stackctl.runs import backends, store
from stackctl.runs import serving as services


@click.command(cls=options.JobCommand)
@click.argument("words", nargs=-1, metavar="MODEL")
@click.option(
    "--on",
    "where",
    type=click.Choice(list(backends.BACKENDS)),
    default="local",
    show_default=True,
    help="Where: a process of this machine, a container, or a cluster.",
)
@click.option("--name", metavar="NAME", help="Name of the service. [default: serve and time; on a cluster the model's]")
@click.option(
    "--model-name", metavar="NAME", help="What requests call the model. [default: its run's, or its folder's]"
)
@click.option("--port", type=click.IntRange(1, 65535), help=f"Port. [default: the server's own, {serving.PORT}]")
@click.option("--gpus", type=int, default=0, metavar="G", help="GPUs of each server.")
@click.option("--image", metavar="NAME", help="Image of the catalog, or any image. [default: the engine's]")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="A token that clients must send.")
@click.option(
    "--engine",
    type=click.Choice(list(serving.SERVERS)),
    default="stack",
    show_default=True,
    help="The server; of others than this stack's own the manifests are printed, with --dry-run.",
)
@options.cluster_options
@click.option("--volume", metavar="CLAIM", help="The claim that has the model: MODEL is then a path on it.")
@click.option("--replicas", type=click.IntRange(1, 1000), default=1, show_default=True, help="Servers on a cluster.")
@click.option(
    "--autoscale", type=click.IntRange(2, 1000), metavar="MOST", help="As many servers as their CPUs ask for."
)
@click.option("--cpu", metavar="AMOUNT", help="CPU cores that a server asks for. [default: 1]")
@click.option("--memory", metavar="AMOUNT", help="Memory that a server asks for and may use. [default: 2Gi]")
@click.option("--profile", default="generic", show_default=True, metavar="NAME|FILE", help="What the cluster is like.")
@click.option(
    "--from", "sources", multiple=True, metavar="NAMESPACE", help="Whose pods may send requests, beside its own."
)
@click.option("--wait", is_flag=True, help="Wait until all servers on the cluster are the new ones.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; a server here then prints to standard error.")
def serve(words: tuple[str, ...], where: str, engine: str, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Answer requests for a trained model, here, in Compose or on Kubernetes.

    MODEL is a finished run, a Hugging Face folder or a .keras file; on a cluster it is a path on the claim of --volume.
    Language models are served with OpenAI's API, Keras models with TensorFlow Serving's REST API and the Open Inference
    Protocol. What follows `--` are options of the server. A service goes on until `stackctl cancel`, or Ctrl-C here.

    \b
    Examples:
      stackctl serve gpt-1122-031500
      stackctl serve runs/mine/export --on compose --token-file token
      stackctl serve gpt/export --on kubernetes --volume checkpoints --replicas 2
      stackctl serve model --engine vllm --on kubernetes --volume models --dry-run
    """
    if len(words) != 1:
        raise InvalidInput("name one model: a run, a folder or a .keras file", where="MODEL")
    if engine != "stack" and not dry_run:
        said = "of this engine the manifests are printed, and nothing is started"
        raise InvalidInput(said, where=f"--engine {engine}", hint="add --dry-run, and apply what it prints")
    if where == "kubernetes":
        _on_cluster(words[0], engine, given, dry_run=dry_run, as_json=as_json)
        return
    for option in ("namespace", "context", "volume", "autoscale", "cpu", "memory", "sources", "wait"):
        if given[option]:
            raise InvalidInput("is for --on kubernetes", where=f"--{'from' if option == 'sources' else option}")
    _here(words[0], where, engine, given, dry_run=dry_run, as_json=as_json)


def _here(word: str, where: str, engine: str, given: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    from stackctl.runs import asking, replacing

    model = services.find(word, given["model_name"], engine)
    name = given["name"] or asking.free_name("serve", ())
    port = given["port"] or serving.server(engine).port
    if engine != "stack":
        told = services.other(model, engine, name=name, port=port, image=given["image"], gpus=given["gpus"])
        click.echo(store.to_json(told.data) if as_json else told.text, nl=False)
        return
    there = replacing.running(name, following.tell) if given["name"] and not dry_run else None
    if there is not None:
        told = replacing.replace(there, model, where, given, options.rest(), following.tell)
        click.echo(store.to_json(told.data) if as_json else told.text, nl=False)
        return
    asked = services.request(
        model, name=name, where=where, port=port, gpus=given["gpus"], image=given["image"], token=given["token_file"],
        more=options.rest(), quiet=as_json,
    )  # fmt: skip
    backend = backends.load(where)
    if dry_run:
        told = backend.plan(asked, following.tell)
        click.echo(store.to_json(told.data) if as_json else told.text, nl=not as_json)
        return
    following.tell(f"{name}: the model {model.name} at http://127.0.0.1:{port}, once it says that it is ready")
    outcome = backend.start(asked, following.tell).wait(None if as_json else following.put)
    if as_json:
        click.echo(store.to_json(outcome.data).decode(), nl=False)
    if outcome.state not in ("succeeded", "stopped"):
        raise JobFailed(outcome.text, hint=outcome.hint)


def _on_cluster(word: str, engine: str, given: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    from stackctl.runs import service_request

    asked = service_request.make(word, engine, options.rest(), given)
    told = service_request.plan(asked) if dry_run else service_request.apply(asked, following.tell)
    click.echo(store.to_json(told.data) if as_json else told.text, nl=False)
    if given["wait"] and not dry_run:
        following.until_end(service_request.handle(asked, following.tell), follow=False)
