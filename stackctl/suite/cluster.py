"""Run the suite on a cluster: a pod a node, node 0's report for all of them, and nothing left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import ApiError
from stackctl.errors import JobFailed, MissingHere, StackError
from stackctl.jobs import gang, quantity
from stackctl.jobs.job import Job
from stackctl.jobs.placement import Placement
from stackctl.jobs.profiles import Profile
from stackctl.runs import explain, feasibility, gangs, submit, watch
from stackctl.runs.feasibility import Node
from stackctl.runs.handle import Lines, Tell
from stackctl.runs.progress import Progress
from stackctl.runs.submission import Submission
from stackctl.runs.watch import Run
from stackctl.suite import compare
from stackctl.suite.compare import Report
from stackrt.checks.log_codec import MARK, Unpacked
from stackrt.signals import undisturbed


class Size(msgspec.Struct, frozen=True):
    """How many nodes to test, with how many GPUs each, and which of the cluster's are left out, with the reason."""

    nodes: int
    gpus: int
    left_out: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What to tell of those that are left out."""
        more = len(self.left_out) - feasibility.SHOWN
        shown = [f"not tested: {text}" for text in self.left_out[: feasibility.SHOWN]]
        return [*shown, f"not tested: {more} more"] if more > 0 else shown


def look(cluster: Cluster) -> list[Node]:
    """The cluster's nodes.

    Raises:
        MissingHere: We may not list them.
    """
    try:
        return cluster.items("Node", Node, resourceVersion="0")
    except ApiError as error:
        if error.status != 403:
            raise
        hint = "say how many with --nodes and --gpus, or ask for the cluster role in k8s/base/rbac.yaml"
        raise MissingHere("you may not list the cluster's nodes", hint=hint) from None


def size(found: Sequence[Node], profile: Profile, *, nodes: int | None, gpus: int | None) -> Size:
    """What to test: the nodes with GPUs, and all GPUs that as many nodes have; the CPU where no node has a GPU.

    Args:
        nodes: How many; None for all.
        gpus: Of each node; None for as many as there are.

    Raises:
        MissingHere: No node takes pods.
    """
    # A node whose GPUs have failed has them in its capacity still.
    owned = {node.metadata.name: _count(node.status.capacity, profile.gpu) for node in found}
    on_gpus = any(owned.values()) if gpus is None else gpus > 0
    fabric = profile.effective(gpus=on_gpus)
    asked = [node for node in found if owned[node.metadata.name] or not on_gpus]
    reasons = {node.metadata.name: feasibility.closed(node, fabric.selector, fabric.tolerations) for node in asked}
    counts = sorted((owned[name] for name, reason in reasons.items() if not reason), reverse=True)
    if gpus is None:
        gpus = counts[min(nodes or len(counts), len(counts)) - 1] if counts and on_gpus else 0
    for node in asked:
        has = _count(node.status.allocatable, profile.gpu)
        if has < gpus and not reasons[node.metadata.name]:
            reasons[node.metadata.name] = f"has {has} of {owned[node.metadata.name]} {profile.gpu} to give"
    closed = tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    if len(closed) == len(reasons):
        why = "\n".join(f"  {text}" for text in closed[: feasibility.SHOWN])
        raise MissingHere("no node of the cluster can be tested" + (f"\n{why}" if why else ""))
    if nodes is None:
        return Size(len(reasons) - len(closed), gpus, closed)
    return Size(nodes, gpus)


def together(cluster: Cluster, job: Job, placement: Placement, say: Tell) -> Placement:
    """The same place, all nodes given theirs at once where the cluster does that: none waits with its GPUs for others.

    Args:
        say: Is given what a person should know of it.
    """
    if not gang.fits(job, wish=gang.AUTO, queue=placement.queue, scheduler=placement.pods.scheduler):
        return placement
    found = gangs.choose(cluster, job, say, wish=gang.AUTO, via=placement.via, namespace=placement.namespace, api="")
    return msgspec.structs.replace(placement, gang=found)


def run(cluster: Cluster, ready: Submission, *, check: bool, say: Tell, skip: Sequence[str] = ()) -> Report:
    """Run the suite and return its report. Its objects are removed, also when it is interrupted.

    Args:
        check: Ask the cluster first whether the job can run.
        skip: Checks that are left out of that, by name.
        say: Is given what a person should see meanwhile.

    Raises:
        JobFailed: It ended without a report; says why.
        ApiError, MissingHere, InvalidInput: As a submission.
    """
    submit.note_registry(ready.placement.image, say)
    if check:
        submit.ask_first(cluster, ready, say, skip)
    run = Run(cluster, ready.job.name, ready.placement.namespace, ready.job, "")
    try:
        uid, _ = submit.create(cluster, ready)
    except KeyboardInterrupt:
        _remove(run, say)  # its Job may be there, the cluster's answer had not come
        raise
    run = msgspec.structs.replace(run, uid=uid)
    try:
        return _gather(run, say)
    finally:
        _remove(run, say)


def _gather(run: Run, say: Tell) -> Report:
    """The report, from node 0's log; what else the nodes print is said."""
    unpacked = Unpacked()
    for line in watch.followed(run, Lines().nodes(run.job), Progress(run, say).look, say):
        text = line.text.decode(errors="replace")
        if not unpacked.take(text[max(0, text.find(MARK)) :]):
            say(text)
    if unpacked.text:
        return compare.read(unpacked.text, "the suite's report")
    raise JobFailed(explain.explain(watch.facts(run)).text)


def _remove(run: Run, say: Tell) -> None:
    try:
        with undisturbed():
            watch.cancel(run)
    except StackError as error:
        say(f"note: {run.name} could not be removed: {error.message}; stackctl cancel {run.name} -n {run.namespace}")


def _count(amounts: Mapping[str, str], resource: str) -> int:
    return int(quantity.value(amounts.get(resource, "0")))
