"""Shipped code on its way to a claim: a short pod of our own takes what is not there yet."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence

import msgspec

from stackctl.engines import code_tree
from stackctl.engines.code_tree import Tree
from stackctl.engines.exchange import Exchange
from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import where_allowed
from stackctl.engines.kube_exec import Executed
from stackctl.engines.kube_paths import address
from stackctl.errors import JobFailed, MissingHere, StackError
from stackctl.jobs import claim_reader as pods
from stackctl.jobs import code_on_claim, pod_options
from stackctl.jobs.kubernetes import CODE_NOTE, CONTAINER, SELECTOR
from stackctl.jobs.placement import OUT
from stackctl.runs import admission, claim_reader, objects
from stackctl.runs.handle import Tell
from stackctl.runs.submission import Submission
from stackrt.signals import undisturbed

LOOK_SECONDS, PATIENCE, SECONDS = 0.5, 300.0, 6 * 3600
"""Between two looks at the pod, until when it must have started or something must move, and how long it may stay."""


_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class _Job(msgspec.Struct):
    metadata: objects.Metadata


class _Jobs(msgspec.Struct):
    items: list[_Job] | None  # of none, the API server makes no list of metadata


def send(cluster: Cluster, ready: Submission, tree: Tree, tell: Tell) -> None:
    """Have a tree on the claim of a submission.

    Raises:
        MissingHere: The pod did not start; says why.
        ApiError: The cluster refuses it.
        JobFailed: The claim took no more, or the connection broke off.
        InvalidInput: A file has changed meanwhile.
    """
    placement = ready.placement
    where = f"--code-claim {placement.code_claim}"
    tell(f"a pod in the namespace {placement.namespace} takes the code to the claim {placement.code_claim}")
    name = f"stackctl-send-{secrets.token_hex(4)}"
    plan = pods.manifest(
        name,
        placement.namespace,
        claim=placement.code_claim,
        image=placement.image,
        command=["python", "-I", "-c", f"import time; time.sleep({SECONDS})"],
        node_choice=pod_options.surroundings(ready.pod),
        amounts=admission.fitted(pods.AMOUNTS, claim_reader.ranges(cluster, placement.namespace)),
        writes=True,
        seconds=SECONDS,
    )
    uid = ""
    try:
        uid = str(cluster.create(plan)[0]["metadata"]["uid"])
        pod = _running(cluster, name, placement.namespace, uid)
        command = code_on_claim.receive(OUT, len(tree.text))
        session = Executed(cluster, placement.namespace, pod, CONTAINER, command, tty=False)
        try:
            exchange = Exchange(session, PATIENCE)
            files, size = give(exchange, tree)
            gone = tidied(exchange, _named(cluster, placement.namespace))
        finally:
            session.close()
    except StackError as error:
        error.where = error.where or where
        raise
    finally:
        with undisturbed(), contextlib.suppress(StackError):  # it goes by itself, too
            cluster.delete("Job", name, placement.namespace, uid=uid)
    tell(f"{files:,} of {len(tree.contents):,} files were not there: {size / 2**20:,.1f} MiB sent")
    if gone[0]:
        tell(f"{gone[0]:,} files that no run has use for were removed from there: {gone[1] / 2**20:,.1f} MiB")


def give(exchange: Exchange, tree: Tree) -> tuple[int, int]:
    """Give a tree to the program that takes it; returns how many files it did not have, and their bytes."""
    exchange.put(code_on_claim.receiver().encode())
    _put(exchange, tree.text)
    missing = msgspec.json.decode(exchange.line(), type=list[str])
    for digest in missing:
        for part in code_tree.chunks(tree, digest):
            exchange.put(part)
    last = exchange.line().decode(errors="replace")
    if last != tree.sha256:
        raise JobFailed(last)
    return len(missing), sum(tree.contents[digest][1] for digest in missing)


def tidied(exchange: Exchange, named: Sequence[str] | None) -> tuple[int, int]:
    """Have the program that took a tree remove what nobody has use for; returns how many files, and their bytes.

    Args:
        named: The trees that runs name; None if that is not known, and then all stays.
    """
    if named is None:
        return 0, 0
    _put(exchange, msgspec.json.encode([*named]) + b"\n")
    return msgspec.json.decode(exchange.line(), type=tuple[int, int])


def _put(exchange: Exchange, text: bytes) -> None:
    for start in range(0, len(text), code_tree.PART):
        exchange.put(text[start : start + code_tree.PART])


def _named(cluster: Cluster, namespace: str) -> list[str] | None:
    """The code that runs of the namespace name, of which nothing but the metadata is read; None where it is not shown.

    A run through a manager that has no Job yet was sent lately, or waits for longer than code is kept.
    """
    with where_allowed():
        found = cluster.read(address("Job", namespace), _Jobs, accept=_METADATA, labelSelector=SELECTOR)
        notes = (row.metadata.annotations.get(CODE_NOTE, "") for row in found.items or [])
        return [digest for digest in dict.fromkeys(notes) if digest]
    return None


def _running(cluster: Cluster, name: str, namespace: str, uid: str) -> str:
    """The pod's name, once it runs."""
    selector = f"batch.kubernetes.io/controller-uid={uid}"
    deadline = time.monotonic() + PATIENCE
    while True:
        found = cluster.items("Pod", objects.Pod, namespace, labelSelector=selector)
        for pod in found:
            if pod.state.running:
                return pod.metadata.name
        if time.monotonic() > deadline or any(pod.has_failed for pod in found):
            why = claim_reader.why_waiting(cluster, name, namespace, found)
            raise MissingHere(f"the pod that takes the code there did not start: {why}")
        time.sleep(LOOK_SECONDS)
