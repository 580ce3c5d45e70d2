"""Nodes as pods of a Kubernetes cluster. What imports the client of the cluster is imported when it is used."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from stackctl.engines import kubeconfig
from stackctl.engines.kubeconfig import Context
from stackctl.errors import InvalidInput, StackError
from stackctl.jobs import gang as gangs
from stackctl.jobs import kubernetes, patch, profiles, secret_names
from stackctl.jobs.placement import output_claim, place
from stackctl.jobs.pod_options import AUTO
from stackctl.jobs.via import MANAGERS
from stackctl.runs import places, store, submission
from stackctl.runs.backends.base import Backend, Request, Where, image_of
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell, Told
from stackctl.runs.states import ENDED, State
from stackctl.runs.store import Record
from stackctl.runs.submission import Submission

if TYPE_CHECKING:
    from stackctl.engines.kube import Cluster


class Kubernetes(Backend):
    """A pod a node. Runs go on without their stackctl, and the cluster has other people's, too."""

    def plan(self, asked: Request, tell: Tell) -> Told:
        """The manifests."""
        if AUTO in asked.cluster.exclude_nodes:
            tell(f"note: which nodes --exclude-node {AUTO} leaves out is looked up when the job is submitted")
        context = _context(asked)
        api = _api(asked, context)
        gang = _gang(asked, context, api, tell)
        return _told(_shown(prepare(_without(asked, []), context, tell, api, gang, shown=True), tell).manifests)

    def trial(self, asked: Request, tell: Tell) -> Told:
        """The manifests as the cluster would have them: it checks them and fills in what it would."""
        from stackctl.engines.kube import Cluster
        from stackctl.runs import managers, submit

        context = _context(asked)
        cluster = Cluster(context.name)
        asked = _avoiding(asked, cluster, context, tell)
        api = managers.api(cluster, asked.cluster.via)
        gang = _gang(asked, context, api, tell, cluster)
        return _told(submit.trial(cluster, _shown(prepare(asked, context, tell, api, gang, shown=True), tell)))

    def start(self, asked: Request, tell: Tell) -> RunHandle:
        """Submit the job.

        Raises:
            ApiError: The cluster refuses it.
            MissingHere, InvalidInput: It cannot run there, as was found before.
            NameTaken: The name is that of another job, or of an object that is not ours.
        """
        from stackctl.engines.kube import Cluster
        from stackctl.runs import managers, submit
        from stackctl.runs.cluster import ClusterRun

        context = _context(asked)
        cluster, home = Cluster(context.name), asked.folder.parent
        api = managers.api(cluster, asked.cluster.via)
        gang = _gang(asked, context, api, tell, cluster)
        ready = prepare(_avoiding(asked, cluster, context, tell), context, tell, api, gang)
        places.free_here(home, ready.job.name)
        folder = places.folder(home, submit.record(cluster, ready))
        check, skip = asked.cluster.preflight, asked.cluster.skip_check
        return ClusterRun(submit.submit(cluster, ready, folder, tell, check=check, skip=skip), tell)

    def watch(self, name: str, record: Record | None, where: Where, tell: Tell) -> RunHandle:
        """The run on its cluster, or what is left of it where the cluster has it no more."""
        from stackctl.engines.kube import Cluster
        from stackctl.runs import leftovers, services, watch
        from stackctl.runs.cluster import ClusterRun, GoneRun

        context = _context_of(name, record, where)
        namespace = where.namespace or (record.namespace if record else "") or context.namespace
        cluster = Cluster(context.name)
        if record and where.namespace and not where.context and context != kubeconfig.current(os.environ):
            tell(f"note: of the context {context.name}, where {name} was submitted; --context chooses another")
        try:
            return ClusterRun(watch.find(cluster, name, namespace), tell)
        except NoSuchRun as error:
            if record is None:
                service = services.find(cluster, name, namespace)
                if service is not None:
                    return services.ServiceRun(cluster, service, tell)
                found = leftovers.find(cluster, name, namespace)
                if not found:
                    raise
                return leftovers.LeftRun(cluster, name, namespace, found, tell)
            if record.server not in ("", cluster.host):
                hint = f"{name} was submitted to {record.server}: set KUBECONFIG, or --context, to that cluster"
                raise NoSuchRun(f"{error.message} on {cluster.host}", hint=hint) from None
            return GoneRun(places.folder(store.home(os.environ), record), record, tell)

    def runs(self, mine: Sequence[Record], where: Where, tell: Tell) -> list[Record]:
        """The store's, and all of one namespace or of all, whoever submitted them."""
        try:
            context = kubeconfig.current(os.environ, where.context or "")
            lacking = kubeconfig.lacking(os.environ)
        except InvalidInput as error:
            if where.named:
                raise
            tell(f"note: {error.where}: {error.message}; {_LAST_SEEN}")
            return [_as_last_seen(record) for record in mine]
        if lacking:
            tell(f"note: no cluster is asked for its runs: {lacking}")
            return [_as_last_seen(record) for record in mine]
        from stackctl.runs import listing

        namespace = where.namespace or context.namespace
        try:
            if where.everywhere:
                there = listing.everywhere(context.name)
            else:
                there = {namespace: listing.states(context.name, namespace)}
            asked = Record(
                name="", backend="kubernetes", attempt=1, started="",
                namespace=namespace, context=context.name, server=context.server,
            )  # fmt: skip
            for record, state in listing.unmade(context.name, _unseen(mine, there, asked)):
                there.setdefault(record.namespace, {})[record.name] = state, record.started
        except StackError as error:
            tell(f"note: {error.message}; {_LAST_SEEN}")
            return [_as_last_seen(record) for record in mine]
        return _merged(mine, there, asked, everywhere=where.everywhere)


_LAST_SEEN = "states are those last seen"


def _unseen(
    mine: Sequence[Record], there: Mapping[str, Mapping[str, tuple[State, str]]], asked: Record
) -> list[Record]:
    """Runs of the store that go on through a manager, and whose Job is not there; of the namespaces that were asked."""
    return [
        record
        for record in mine
        if record.via in MANAGERS and record.state not in ENDED and record.name not in there.get(record.namespace, {})
        if _same_place(record, msgspec.structs.replace(asked, namespace=record.namespace))
        and record.namespace in (asked.namespace, *there)
    ]


def _merged(
    mine: Sequence[Record],
    there: Mapping[str, Mapping[str, tuple[State, str]]],
    asked: Record,
    *,
    everywhere: bool = False,
) -> list[Record]:
    """The store's runs, and those of the namespaces that were asked; pure.

    Args:
        there: Namespace -> its runs: name -> state, and when it was submitted.
        asked: Where they are.
        everywhere: Whether all namespaces were asked.
    """
    found, known = [], set()
    for record in sorted(mine, key=lambda record: record.context != asked.context):
        place = msgspec.structs.replace(asked, namespace=record.namespace) if everywhere else asked
        if not _same_place(record, place):
            found.append(_as_last_seen(record))
            continue
        if (record.namespace, record.name) in known:
            continue  # submitted again, through another context
        known.add((record.namespace, record.name))
        rows = there.get(record.namespace, {})
        lost: State = record.state if record.state in ENDED else "gone"
        state = rows[record.name][0] if record.name in rows else lost
        found.append(msgspec.structs.replace(record, state=state, seen=""))
    for namespace, rows in there.items():
        theirs = ((name, row) for name, row in rows.items() if (namespace, name) not in known)
        place = msgspec.structs.replace(asked, namespace=namespace)
        found += [msgspec.structs.replace(place, name=name, state=state, started=at) for name, (state, at) in theirs]
    return found


def _same_place(record: Record, asked: Record) -> bool:
    """Whether a run of the store is where was asked, also through another context of the same cluster.

    An address of this machine is no cluster's own: one after another may have it.
    """
    alike = asked.server and record.server == asked.server and not kubeconfig.of_this_machine(asked.server)
    return store.same_place(msgspec.structs.replace(record, context=asked.context) if alike else record, asked)


def _as_last_seen(record: Record) -> Record:
    """A run of a place that was not asked: what has ended stays so, of any other it counts when it was seen."""
    return msgspec.structs.replace(record, seen="" if record.state in ENDED else record.seen or record.started)


def _avoiding(asked: Request, cluster: Cluster, context: Context, tell: Tell) -> Request:
    """What was asked for, with the nodes that failed several runs in the last day in place of `auto`."""
    if AUTO not in asked.cluster.exclude_nodes:
        return asked
    from stackctl.runs import node_failures, watch

    found = watch.failed_nodes(cluster, asked.cluster.namespace or context.namespace)
    avoided = node_failures.avoided(found)
    for line in node_failures.told(found, avoided):
        tell(f"note: {line}: left out")
    if not avoided:
        tell(f"note: --exclude-node {AUTO}: no node has failed several runs in the last day")
    return _without(asked, avoided)


def _without(asked: Request, nodes: Sequence[str]) -> Request:
    """What was asked for, with these nodes in place of `auto`."""
    named = [name for name in asked.cluster.exclude_nodes if name != AUTO]
    cluster = msgspec.structs.replace(asked.cluster, exclude_nodes=tuple(dict.fromkeys([*named, *nodes])))
    return msgspec.structs.replace(asked, cluster=cluster)


def _api(asked: Request, context: Context) -> str:
    """The group and version of what gives the cluster the job; of its own Job nobody needs to ask."""
    if asked.cluster.via not in MANAGERS:
        return ""
    from stackctl.engines.kube import Cluster
    from stackctl.runs import managers

    return managers.api(Cluster(context.name), asked.cluster.via)


def _gang(asked: Request, context: Context, api: str, tell: Tell, cluster: Cluster | None = None) -> str:
    """How the cluster is told that the job is a gang; a plain dry run asks it only if a person wants one for sure.

    Raises:
        MissingHere, InvalidInput: It was asked for, and cannot be.
    """
    options = asked.cluster
    gangs.check(options.gang, options.queue)
    if not gangs.fits(asked.job, wish=options.gang, queue=options.queue, scheduler=options.scheduler):
        return ""
    if cluster is None and options.gang == gangs.AUTO:
        tell("note: whether the cluster places all nodes at once is looked up when the job is submitted (--gang)")
        return ""
    from stackctl.engines.kube import Cluster
    from stackctl.runs.gangs import choose

    namespace = options.namespace or context.namespace
    there = cluster or Cluster(context.name)
    return choose(there, asked.job, tell, wish=options.gang, via=options.via, namespace=namespace, api=api)


def prepare(
    asked: Request, context: Context, tell: Tell, api: str = "", gang: str = "", *, shown: bool = False
) -> Submission:
    """Place the job, pack its code, and make the manifests.

    Args:
        api: Group and version of what gives the cluster the job, where that is not its own Job.
        gang: How the cluster is told that the job is a gang.
        shown: They are only shown.

    Raises:
        InvalidInput: Something that was asked for does not fit.
    """
    job, options = asked.job, asked.cluster
    left = [word for word in job.command if not word.startswith(("-", "/")) and os.path.isfile(word)]  # noqa: PTH113 - pathlib's raises for a long word
    if options.code is None and left and not job.workload:
        tell(f"note: pods see the image's files, not {left[0]} of this folder; ship it with --code .")
    shipped = None
    if options.code is not None:
        from stackctl.runs import shipping

        claim, other = options.code_claim or "", output_claim(options.volumes)
        shipped = shipping.ship(options.code, tell, everything=options.code_all, claim=claim, other=other)
    elif options.code_all or options.code_claim:
        where, what = ("--code-all", "what of --code is") if options.code_all else ("--code-claim", "where --code is")
        raise InvalidInput(f"says {what} shipped", where=where, hint="give --code DIR, too")
    for name in secret_names.variables(job.env):
        tell(f"note: who may see the job can read --env {name}; --secret-env {name} keeps its value in a Secret")
    placement = place(
        job,
        namespace=options.namespace or context.namespace,
        profile=profiles.load(options.profile),
        image=image_of(job),
        code=shipped.sha256 if shipped else "",
        code_claim=shipped.claim if shipped else "",
        cpu=options.cpu,
        cpu_limit=options.cpu_limit,
        memory=options.memory,
        ephemeral_storage=options.ephemeral_storage,
        shm=options.shm,
        queue=options.queue,
        topology=options.topology,
        priority=options.priority,
        volumes=options.volumes,
        secret_env=options.secret_env,
        retries=options.retries,
        pods=options,
        via=options.via,
        api=api,
        gang=gang,
    )
    if placement.pods.host_network:
        tell("note: no NetworkPolicy guards pods on their node's network: whoever reaches the nodes reaches the ranks")
    for name in patch.extra_containers(placement.pods.patch or {}, kubernetes.CONTAINER):
        tell(f"note: the run goes on until {name} has ended, too; one that stays is an initContainer with "
             "restartPolicy: Always")  # fmt: skip
    return submission.prepare(job, placement, shipped, os.environ, shown=tell if shown else None)


def _shown(ready: Submission, tell: Tell) -> Submission:
    """A submission that is about to be printed: whole, so that kubectl can apply it, with what is secret in it."""
    if ready.tree:
        tell(f"note: a dry run sends no code: submit puts it on the claim {ready.placement.code_claim}")
    own = [row.name for row in ready.placement.secret_env if not row.secret]
    if own:
        shown = ", ".join(own[:3]) + (", …" if len(own) > 3 else "")
        tell(f"note: the Secret below holds the value of {shown}, for whoever reads this")
    return ready


def _context_of(name: str, record: Record | None, where: Where) -> Context:
    """The context that is named, else the one that a run was submitted to, else the current one."""
    if record is None or where.context:
        return kubeconfig.current(os.environ, where.context or "")
    try:
        return kubeconfig.current(os.environ, record.context)
    except InvalidInput as error:
        said = f"was submitted to the context {record.context}, and {error.message}"
        seen = f"{record.state} when last seen, at {record.seen or record.started}"
        hint = f"{seen}; --context says what it is called now"
        raise InvalidInput(said, where=name, hint=hint) from None


def _context(asked: Request) -> Context:
    return kubeconfig.current(os.environ, asked.cluster.context or "")


def _told(manifests: list[kubernetes.Manifest]) -> Told:
    return Told(kubernetes.to_yaml(manifests), kubernetes.as_list(manifests))
