"""Nodes as pods of a Kubernetes cluster. What imports the client of the cluster is imported when it is used."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from stackctl.engines import kubeconfig
from stackctl.engines.kubeconfig import Context
from stackctl.errors import InvalidInput, StackError
from stackctl.jobs import kubernetes, profiles
from stackctl.jobs.placement import place
from stackctl.runs import store, submission
from stackctl.runs.backends.base import Backend, Request, Where, image_of
from stackctl.runs.handle import NoSuchRun, RunHandle, Tell, Told
from stackctl.runs.states import State
from stackctl.runs.store import Record
from stackctl.runs.submission import Submission


class Kubernetes(Backend):
    """A pod a node. Runs go on without their stackctl, and the cluster has other people's, too."""

    def plan(self, asked: Request, tell: Tell) -> Told:
        """The manifests."""
        return _told(prepare(asked, _context(asked), tell).manifests)

    def trial(self, asked: Request, tell: Tell) -> Told:
        """The manifests as the cluster would have them: it checks them and fills in what it would."""
        from stackctl.engines.kube import Cluster
        from stackctl.runs import submit

        context = _context(asked)
        return _told(submit.trial(Cluster(context.name), prepare(asked, context, tell)))

    def start(self, asked: Request, tell: Tell) -> RunHandle:
        """Submit the job.

        Raises:
            ApiError: The cluster refuses it.
            MissingHere, InvalidInput: It cannot run there, as was found before.
            NameTaken: The name is that of another job, or of an object that is not ours.
        """
        from stackctl.engines.kube import Cluster
        from stackctl.runs import submit
        from stackctl.runs.cluster import ClusterRun

        context = _context(asked)
        ready = prepare(asked, context, tell)
        run = submit.submit(Cluster(context.name), ready, asked.folder, tell, check=asked.cluster.preflight)
        return ClusterRun(run, tell)

    def watch(self, name: str, record: Record | None, where: Where, tell: Tell) -> RunHandle:
        """The run on its cluster, or what is left of it where the cluster has it no more."""
        from stackctl.engines.kube import Cluster
        from stackctl.runs import watch
        from stackctl.runs.cluster import ClusterRun, GoneRun

        context = kubeconfig.current(os.environ, where.context or (record.context if record else ""))
        namespace = where.namespace or (record.namespace if record else "") or context.namespace
        try:
            return ClusterRun(watch.find(Cluster(context.name), name, namespace), tell)
        except NoSuchRun:
            if record is None:
                raise
            return GoneRun(store.home(os.environ) / name, record, tell)

    def runs(self, mine: Sequence[Record], where: Where, tell: Tell) -> list[Record]:
        """The store's, and all of one namespace, whoever submitted them."""
        try:
            context = kubeconfig.current(os.environ, where.context or "")
        except InvalidInput as error:
            if where.named:
                raise
            tell(f"note: {error.where}: {error.message}; states are those last seen")
            return list(mine)
        namespace = where.namespace or context.namespace
        if not (context.name or where.namespace):
            return list(mine)
        from stackctl.runs import listing

        try:
            there = listing.states(context.name, namespace)
        except StackError as error:
            tell(f"note: {error.message}; states are those last seen")
            return list(mine)
        found = {record.name: record for record in mine}
        for record in mine:
            if (record.context, record.namespace) == (context.name, namespace):
                lost: State = "gone" if record.state == "running" else record.state
                state = there[record.name][0] if record.name in there else lost
                found[record.name] = msgspec.structs.replace(record, state=state)
        for name, (state, created) in there.items():
            theirs = Record(
                name=name, backend="kubernetes", attempt=1, started=created, state=state, namespace=namespace
            )
            found.setdefault(name, theirs)
        return list(found.values())


def prepare(asked: Request, context: Context, tell: Tell) -> Submission:
    """Place the job, pack its code, and make the manifests.

    Raises:
        InvalidInput: Something that was asked for does not fit.
    """
    job, options = asked.job, asked.cluster
    left = [word for word in job.command if not word.startswith(("-", "/")) and os.path.isfile(word)]  # noqa: PTH113 - pathlib's raises for a long word
    if options.code is None and left and not job.workload:
        tell(f"note: pods see the image's files, not {left[0]} of this folder; ship it with --code .")
    packed = None
    if options.code is not None:
        from stackctl.engines import archive

        packed = archive.pack(options.code)
        if packed.left_out:
            names = ", ".join(packed.left_out[:3]) + (", …" if len(packed.left_out) > 3 else "")
            tell(f"note: git does not track {names}: not shipped")
    placement = place(
        job,
        namespace=options.namespace or context.namespace,
        profile=profiles.load(options.profile),
        image=image_of(job),
        code=packed.sha256 if packed else "",
        cpu=options.cpu,
        memory=options.memory,
        shm=options.shm,
        queue=options.queue,
        topology=options.topology,
        priority=options.priority,
        volumes=options.volumes,
        secret_env=options.secret_env,
        retries=options.retries,
    )
    return submission.prepare(job, placement, packed, os.environ)


def _context(asked: Request) -> Context:
    return kubeconfig.current(os.environ, asked.cluster.context or "")


def _told(manifests: list[kubernetes.Manifest]) -> Told:
    return Told(kubernetes.to_yaml(manifests), kubernetes.as_list(manifests))
