"""`stackctl test`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import click

from stackctl.cli import complete, following, options, pod_options
from stackctl.cli.sections import STARTS, Sectioned
from stackctl.errors import InvalidInput, JobFailed, did_you_mean
from stackctl.images import catalog
from stackctl.images.settings import from_env
from stackctl.suite import compare, plan
from stackctl.suite.compare import Report
from stackctl.suite.plan import Selection

FEW_NODES = 64
"""As many containers as one machine may be asked for."""

ON_CLUSTER = (
    "all_nodes",
    "gpus",
    "namespace",
    "context",
    "profile",
    "preflight",
    "skip_check",
    *options.POD_PARAMETERS,
    *pod_options.PARAMETERS,
)
"""Options that mean something on a cluster only."""


class TestCommand(Sectioned):
    """A command with options for a cluster."""

    starts: ClassVar[Mapping[str, str]] = {
        **{name: title for name, title in STARTS.items() if name in ON_CLUSTER},
        "all_nodes": "Cluster",
    }


@click.command(cls=TestCommand)
@click.argument("image", shell_complete=complete.images)
@click.option("--variant", metavar="NAME", help="cpu or cuda. [default: cuda where there are GPUs]")
@click.option(
    "--on",
    "backend",
    type=click.Choice(["docker", "compose", "kubernetes"]),
    help="One container, one a node, or a pod a node. [default: docker; compose with --nodes]",
)
@click.option("--nodes", type=int, metavar="N", help="Number of nodes. [default: 1]")
@click.option(
    "--timeout",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="How long nodes wait for one another at the start. [default: 60; on a cluster 900]",
)
@click.option(
    "--only", multiple=True, metavar="NAME", help="Only this check; more than once, or with commas, for several."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only checks of this tag or subject.")
@click.option(
    "--require",
    multiple=True,
    metavar="WHAT",
    help="Fail without it: gpu, multi-gpu, multi-node, or a number of GPUs.",
)
@click.option(
    "--burn", type=click.FloatRange(0, 86_400), default=0.0, metavar="SECONDS", help="Load each GPU for so long."
)
@click.option("--strict", is_flag=True, help="Count warnings as failures.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report there; - for standard output.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the report there, as JUnit XML.")
@click.option("--dry-run", is_flag=True, help="Print what would be started, and stop.")
@click.option("--compare", "old_file", metavar="OLD.json", help="Say what has changed since that report.")
@click.option("--all-nodes", is_flag=True, help="Every node that takes pods.")
@click.option("--gpus", type=int, metavar="G", help="GPUs of each node. [default: all]")
@options.cluster_options
@options.pod_options
@pod_options.pod_options
def test(
    image: str,
    variant: str | None,
    backend: str | None,
    nodes: int | None,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    require: tuple[str, ...],
    burn: float,
    strict: bool,
    json_file: str | None,
    junit_file: str | None,
    dry_run: bool,
    old_file: str | None,
    timeout: int | None,
    **given: Any,
) -> None:
    """Test an image, and this machine with it: is it fit to train?

    IMAGE is a name of the catalog, or any image that is built FROM one of this stack. Each check passes, warns, fails,
    or is skipped with its reason. docs/checks.md says how to read it; docs/reference/checks.md lists the checks.
    The options from --all-nodes on are for --on kubernetes.

    \b
    Examples:
      stackctl test pytorch
      stackctl test pytorch --require gpu --json report.json
      stackctl test pytorch --nodes 3 --tag network
      stackctl test pytorch --compare report.json
      stackctl test pytorch --on kubernetes --all-nodes
    """
    from stackrt.checks.options import split

    chosen = Selection(only=split(only), tags=split(tags), require=split(require), burn=burn)
    name = f"stackctl-test-{secrets.token_hex(4)}"
    old = _read(old_file) if old_file and not dry_run else None
    if not dry_run:
        _writable(json_file, junit_file)
    asked = _Asked(image, variant, chosen, name, nodes, timeout, dry_run)
    made = _on_cluster(asked, **given) if backend == "kubernetes" else _here(asked, backend)
    if made is None:
        return
    _deliver(made, old, json_file, junit_file)
    if compare.failed(made, strict=strict):
        hint = "the lines above say what was expected and what to do"
        raise JobFailed(compare.trouble(made, strict=strict), hint=hint)


class _Asked(NamedTuple):
    """What is asked for, wherever it runs; None where the place decides."""

    image: str
    variant: str | None
    chosen: Selection
    name: str
    nodes: int | None
    timeout: int | None
    dry_run: bool


def _here(asked: _Asked, backend: str | None) -> Report | None:
    """Run the suite in containers of this machine; a dry run only prints what would be started."""
    from stackctl.suite import execute

    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(str(option.name)) is click.core.ParameterSource.COMMANDLINE
        if given and option.name in ON_CLUSTER:
            raise InvalidInput("is for a cluster", where=max(option.opts, key=len), hint="add --on kubernetes")
    nodes = 1 if asked.nodes is None else asked.nodes
    if not 1 <= nodes <= FEW_NODES:
        raise InvalidInput(f"must be from 1 to {FEW_NODES}", where=f"--nodes {nodes}")
    if nodes > 1 and backend == "docker":
        raise InvalidInput("is one container", where="--on docker", hint="use --on compose for several nodes")
    from stackrt.launch.gpus import count_visible

    tag, frameworks, hint = _image(asked.image, asked.variant, count_visible())
    plan.check(asked.chosen, frameworks)
    in_compose = nodes > 1 or backend == "compose"
    if asked.dry_run:
        click.echo(_plan(tag, asked.chosen, asked.name, nodes if in_compose else 0))
        return None
    if in_compose:
        wait = asked.timeout or 60
        return execute.in_compose(
            tag, asked.chosen, name=asked.name, nodes=nodes, timeout=wait, hint=hint, say=following.tell
        )
    return execute.in_docker(tag, asked.chosen, name=asked.name, hint=hint)


def _on_cluster(
    asked: _Asked,
    *,
    all_nodes: bool,
    gpus: int | None,
    namespace: str | None,
    context: str | None,
    profile: str,
    preflight: bool,
    skip_check: tuple[str, ...],
    **placed: Any,
) -> Report | None:
    """Run the suite on a cluster; a dry run only prints the manifests."""
    from stackctl.engines import kubeconfig
    from stackctl.jobs import kubernetes, profiles
    from stackctl.jobs.placement import place
    from stackctl.jobs.pod_options import PodOptions
    from stackctl.runs import submission

    if all_nodes and asked.nodes is not None:
        raise InvalidInput("do not go together", where="--nodes and --all-nodes", hint="leave out one of them")
    nodes = None if all_nodes else 1 if asked.nodes is None else asked.nodes
    fabric, where = profiles.load(profile), kubeconfig.current(os.environ, context or "")
    if nodes is None or gpus is None:
        from stackctl.engines.kube import Cluster
        from stackctl.suite import cluster

        size = cluster.size(cluster.look(Cluster(where.name)), fabric, nodes=nodes, gpus=gpus)
        nodes, gpus = size.nodes, size.gpus
        for note in size.notes:
            click.echo(f"note: {note}", err=True)
    tag, frameworks, _ = _image(asked.image, asked.variant, gpus)
    plan.check(asked.chosen, frameworks)
    chosen = plan.with_gpus(asked.chosen, gpus)
    job = plan.job(tag, chosen, name=asked.name, nodes=nodes, timeout=asked.timeout or 900, gpus=gpus)
    pods = PodOptions(**{name: placed.pop(name) for name in pod_options.PARAMETERS})
    place_in = {"namespace": namespace or where.namespace, "profile": fabric, "image": tag, "pods": pods, **placed}
    placement = place(job, **place_in, retries=0, apart=True, kept=3600)
    if asked.dry_run:
        click.echo(kubernetes.to_yaml(submission.prepare(job, placement, None, os.environ).manifests), nl=False)
        return None
    from stackctl.engines.kube import Cluster
    from stackctl.suite import cluster

    there = Cluster(where.name)
    ready = submission.prepare(job, cluster.together(there, job, placement, following.tell), None, os.environ)
    return cluster.run(there, ready, check=preflight, skip=skip_check, say=following.tell)


def _writable(json_file: str | None, junit_file: str | None) -> None:
    """See now, not after a minute of checks, that the reports can be written."""
    from stackrt.checks.options import UsageError, writable

    try:
        writable("--json", json_file or "")
        writable("--junit", junit_file or "")
    except UsageError as error:
        raise InvalidInput(str(error)) from None


def _plan(image: str, chosen: Selection, name: str, nodes: int) -> str:
    """What would be started: a Compose file for `nodes` nodes, or for 0 the command line of one container."""
    if not nodes:
        import shlex

        from stackrt.launch.gpus import count_visible

        return shlex.join(plan.container(image, chosen, name=name, gpus=count_visible() > 0))
    from stackctl.jobs import compose
    from stackctl.jobs.yaml_text import to_yaml

    job = plan.job(image, chosen, name=name, nodes=nodes)
    return to_yaml(compose.document(job, image=image, user="1000:1000", volumes=["out:/out"]))


def _image(name: str, variant: str | None, gpus: int) -> tuple[str, frozenset[str] | None, str]:
    """The image's full name, the frameworks in it (None if the catalog does not have it), and how to get it."""
    rows = catalog.load()
    if name not in rows.images:
        if variant:
            raise InvalidInput(
                f"{name!r} is no image of the catalog, so it has no variants", where="--variant", hint="leave it out"
            )
        return (
            name,
            None,
            f"get it with `docker pull {name}`, or name an image of the catalog; {did_you_mean(name, rows.images)}",
        )
    from stackrt.checks.context import frameworks

    if variant is None:
        variants = rows.images[name].variants
        variant = "cuda" if (gpus and "cuda" in variants) or "cpu" not in variants else "cpu"
    target = catalog.targets(rows, name, variant, from_env(os.environ).image_prefix)[0]
    image = target.image
    inside = frameworks(image.framework, horovod=image.horovod, mpi=image.mpi)
    return target.tag, inside, f"build it: `stackctl build {name} --variant {variant}`"


def _read(file: str) -> Report:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise InvalidInput(f"cannot be read: {reason}", where=f"--compare {file}") from None
    return compare.read(text, file)


def _deliver(made: Report, old: Report | None, json_file: str | None, junit_file: str | None) -> None:
    """Print and write the report."""
    import json

    from stackrt.checks import report as suite_report
    from stackrt.checks import show

    text = json.dumps(made, indent=2) + "\n"
    if json_file and json_file != "-":
        Path(json_file).write_text(text, encoding="utf-8")
    if junit_file:
        Path(junit_file).write_text(suite_report.junit(made), encoding="utf-8")
    to_stderr = json_file == "-"
    click.echo("\n" + show.summary(made), err=to_stderr)
    if old is not None:
        changes = compare.compare(old, made)
        click.echo(
            "\n".join(["changed since:", *(f"  {line}" for line in changes)]) if changes else "nothing has changed",
            err=to_stderr,
        )
    if to_stderr:
        click.echo(text, nl=False)
