"""Submit a job: check, create its objects, write it down. A submission that was cut may be repeated."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stackctl.engines.kube import Cluster, Object
from stackctl.engines.kube_errors import ApiError
from stackctl.engines.kube_paths import kind_of
from stackctl.errors import InvalidInput, NameTaken, StackError
from stackctl.jobs import gang, kubernetes, pod_options
from stackctl.jobs.kubernetes import DIGEST_NOTE, RUN_LABEL
from stackctl.jobs.via import MANAGERS, TRAINJOB
from stackctl.runs import leftovers, places, preflight, store, summary
from stackctl.runs.handle import Tell
from stackctl.runs.managers import ENDS
from stackctl.runs.store import Record
from stackctl.runs.submission import Submission
from stackctl.runs.watch import Run
from stackrt.signals import undisturbed

GOING_SECONDS, KNOWN_SECONDS, LOOK_SECONDS = 60.0, 20.0, 1.0
"""How long to wait for an earlier run of the name to go, for a manager to know what was made, between two looks."""

_TRIES = 5


def submit(
    cluster: Cluster, ready: Submission, folder: Path, tell: Tell, *, check: bool, skip: Sequence[str] = ()
) -> Run:
    """Submit a job, and write it down in its folder.

    Args:
        check: Ask the cluster first whether the job can run.
        skip: Checks that are left out of that, by name.

    Raises:
        NameTaken: The folder holds another run; or as `create`.
        ApiError, MissingHere, InvalidInput: As `preflight.check` and `create`.
    """
    written = record(cluster, ready)
    store.free_for(folder, written)
    if check:
        ask_first(cluster, ready, tell, skip)
    if skip or not check:
        left = f"{', '.join(skip)} (--skip-check)" if check else "anything (--no-preflight)"
        tell(
            f"note: not checked beforehand: {left}; `stackctl explain {ready.job.name}` says what keeps it from running"
        )
    note_registry(ready.placement.image, tell)
    if ready.tree:
        from stackctl.runs import code_sender

        code_sender.send(cluster, ready, ready.tree, tell)
    uid, there = _create_or_tell(cluster, ready, tell)
    store.submitted(folder, ready.job, msgspec.structs.replace(written, uid=uid))
    tell(_announcement(cluster, ready, _chosen(folder, written), there=there))
    return Run(cluster, ready.job.name, ready.placement.namespace, ready.job, uid, ready.placement.via)


def record(cluster: Cluster, ready: Submission) -> Record:
    """What is written down of a run that is about to be submitted."""
    return Record(
        name=ready.job.name,
        backend="kubernetes",
        attempt=1,
        started=store.now(),
        image=ready.placement.image,
        namespace=ready.placement.namespace,
        context=cluster.context,
        server=cluster.host,
        claim=ready.placement.claim,
        node_choice=pod_options.surroundings(ready.pod),
        via=ready.placement.via,
    )


def ask_first(cluster: Cluster, ready: Submission, tell: Tell, skip: Sequence[str] = ()) -> None:
    """Ask the cluster whether the job can run, without the checks to skip; tell what else is worth it."""
    for note in preflight.check(cluster, ready, skip):
        tell(f"note: {note}")


def note_registry(image: str, tell: Tell) -> None:
    """Tell a person that a cluster may not be able to pull an image of this name."""
    if "/" not in image:
        hint = "push it under your own and set STACK_IMAGE_PREFIX, unless the nodes have it"
        tell(f"note: the image {image} names no registry: {hint}")


def _create_or_tell(cluster: Cluster, ready: Submission, tell: Tell) -> tuple[str, bool]:
    try:
        return create(cluster, ready)
    except KeyboardInterrupt:
        # The cluster may have taken the Job, and its answer has not come.
        name, namespace = ready.job.name, ready.placement.namespace
        tell(f"\nif {name} is there, remove it with: stackctl cancel {name} -n {namespace}")
        raise


def _chosen(folder: Path, written: Record) -> str:
    """What a person must add to the run's name, if there are others of it."""
    others = [row for row in places.on_clusters(folder.parent, written.name) if not store.same_place(row, written)]
    if not others:
        return ""
    alike = any(row.namespace == written.namespace for row in others)
    return f" -n {written.namespace}" + (f" --context {written.context}" if alike else "")


def _announcement(cluster: Cluster, ready: Submission, chosen: str, *, there: bool) -> str:
    name = f"{ready.job.name}{chosen}"
    place = f"{summary.size(ready.job)} on {cluster.context or cluster.host}, namespace {ready.placement.namespace}"
    return (
        f"{ready.job.name}: {'is there already' if there else 'submitted'} ({place})\n"
        f"  stackctl logs -f {name}    what the ranks print\n"
        f"  stackctl status {name}     how it fares\n"
        f"  stackctl explain {name}    why it does not run, or has failed\n"
        f"  stackctl cancel {name}     stop and remove it"
    )


def create(cluster: Cluster, submission: Submission) -> tuple[str, bool]:
    """Create every object of a job; what stands for the run owns those behind it, so they go with it.

    Returns:
        The uid of what stands for the run, and whether this very job was there already.

    Raises:
        NameTaken: The name is that of another job, or of an object that is not ours.
        ApiError: The cluster refused one; what was created is removed again.
    """
    for _ in range(_TRIES):
        try:
            return _create(cluster, submission)
        except _Kept as error:
            _wait_until_gone(cluster, error.kind, error.there)
    raise InvalidInput("its name keeps being taken and freed", where=f"--name {submission.job.name}")


class _Kept(Exception):
    """An earlier run's group of pods that is being removed: the new run's pods would be in it, and keep it for ever."""

    def __init__(self, kind: str, there: Object) -> None:
        self.kind, self.there = kind, there


def _create(cluster: Cluster, submission: Submission) -> tuple[str, bool]:
    run, made = submission.run, list[tuple[Object, str]]()
    try:
        for manifest in submission.before:
            found, there = _create_run(cluster, manifest)
            made += [] if there else [(manifest, found["metadata"]["uid"])]
        found, there = _create_run(cluster, run)
        uid = str(found["metadata"]["uid"])
        made += [] if there else [(run, uid)]
        for manifest in submission.owned:
            _create_owned(cluster, kubernetes.owned(manifest, run, uid), uid)
    except BaseException as error:
        if isinstance(error, _Kept):
            made = made or [(run, uid)]
        if made:
            _undo(cluster, made, error)
        raise
    return uid, there


def trial(cluster: Cluster, submission: Submission) -> list[Object]:
    """Have the cluster check every object and fill in what it would, without creating any."""
    made = [_tried(cluster, row) for row in submission.manifests]
    for row in made:
        row["metadata"].pop("managedFields", None)  # who has set which field: of no use to a reader
    return made


def _tried(cluster: Cluster, manifest: Object) -> Object:
    """An object as the cluster would have it.

    A TrainJob is taken only where its runtime is, and in a trial that is not there. Trainer's webhook looks for it
    after all that the API server has to refuse; such a run stays as it is.
    """
    try:
        return cluster.create(manifest, dry_run=True)[0]
    except ApiError as error:
        if not _lacks_runtime(manifest, error):
            raise
        return manifest


def _lacks_runtime(manifest: Object, error: ApiError) -> bool:
    """Whether an object is refused for a runtime that Trainer does not know."""
    return manifest["kind"] == MANAGERS[TRAINJOB].kind and "runtimeRef" in error.message


def _created(cluster: Cluster, manifest: Object) -> Object:
    """An object that was created now. A busy Trainer learns of the runtime that was made before it some time later."""
    deadline = time.monotonic() + KNOWN_SECONDS
    while True:
        try:
            return cluster.create(manifest)[0]
        except ApiError as error:
            if not _lacks_runtime(manifest, error) or time.monotonic() > deadline:
                raise
        time.sleep(LOOK_SECONDS)


def _create_run(cluster: Cluster, manifest: Object) -> tuple[Object, bool]:
    """What stands for the run as the cluster has it, or what is there before; whether an earlier submission made it."""
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    kind = kind_of(manifest)
    sent = 0
    for _ in range(_TRIES):
        before = cluster.calls
        try:
            return _created(cluster, manifest), False
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            sent += cluster.calls - before
        there = cluster.get(kind, name, namespace)
        if there is None:
            continue
        if there["metadata"].get("deletionTimestamp"):
            _wait_until_gone(cluster, kind, there)
            continue
        if (there["metadata"].get("annotations") or {}).get(DIGEST_NOTE) != kubernetes.digest(manifest):
            raise NameTaken(
                f"the namespace {namespace} has another job of this name",
                where=f"--name {name}",
                hint=f"choose another name, or remove that one: stackctl cancel {name} -n {namespace}",
            )
        if _ended(there):
            raise NameTaken(
                "this job has run already",
                where=f"--name {name}",
                hint=f"choose another name, or remove it to run it again: stackctl cancel {name} -n {namespace}",
            )
        # More than one request: the first may have made it, and its answer was lost.
        return there, sent <= 1
    raise InvalidInput("its name keeps being taken and freed", where=f"--name {name}")


def _create_owned(cluster: Cluster, manifest: Object, uid: str) -> None:
    kind, noun, metadata = kind_of(manifest), manifest["kind"], manifest["metadata"]
    for _ in range(_TRIES):
        try:
            cluster.create(manifest)
            return
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        there = cluster.get(kind, metadata["name"], metadata["namespace"])
        if there is None:
            continue
        owners = [row.get("uid") for row in there["metadata"].get("ownerReferences") or []]
        if uid in owners:
            return
        if noun == gang.KIND and there["metadata"].get("deletionTimestamp"):
            raise _Kept(kind, there)
        remove = f"stackctl cancel {metadata['name']} -n {metadata['namespace']}"
        if _is_of_another(cluster, there, metadata["ownerReferences"][0]["kind"]):
            raise NameTaken(
                f"the namespace {metadata['namespace']} has a run of this name, with another --via",
                where=f"--name {metadata['name']}",
                hint=f"choose another name, or remove it: {remove}",
            )
        if leftovers.is_left(there, metadata["name"]):
            raise NameTaken(
                f"the namespace {metadata['namespace']} has a {noun} of this name, of a run that kubectl applied",
                where=f"--name {metadata['name']}",
                hint=f"remove it: {remove}",
            )
        if RUN_LABEL not in (there["metadata"].get("labels") or {}) or not owners:
            raise NameTaken(
                f"the namespace {metadata['namespace']} has a {noun} of this name that belongs to no run",
                where=f"--name {metadata['name']}",
                hint=f"choose another name, or remove it: kubectl delete {noun.lower()} {metadata['name']}",
            )
        if noun == gang.KIND:
            raise _Kept(kind, there)
        _wait_until_gone(cluster, kind, there)  # an earlier run of the name is being removed
    raise InvalidInput("its name keeps being taken and freed", where=f"--name {metadata['name']}")


def _is_of_another(cluster: Cluster, there: Object, kind: str) -> bool:
    """Whether an object belongs to a run of its name that is there through something else."""
    metadata = there["metadata"]
    others = [row for row in metadata.get("ownerReferences") or [] if row.get("kind") != kind]
    return any(cluster.get(kind_of(row), metadata["name"], metadata["namespace"]) for row in others)


def _wait_until_gone(cluster: Cluster, kind: str, there: Object) -> None:
    metadata = there["metadata"]
    deadline = time.monotonic() + GOING_SECONDS
    while time.monotonic() < deadline:
        now = cluster.get(kind, metadata["name"], metadata["namespace"])
        if now is None or now["metadata"]["uid"] != metadata["uid"]:
            return
        time.sleep(LOOK_SECONDS)
    raise NameTaken(
        f"an earlier run's {kind.rpartition('/')[2]} is still being removed",
        where=f"--name {metadata['name']}",
        hint="wait a little, or choose another name",
    )


def _undo(cluster: Cluster, made: Sequence[tuple[Object, str]], error: BaseException) -> None:
    """Remove a job that could not be made whole: what was made of it, with its uids."""
    name, namespace = made[0][0]["metadata"]["name"], made[0][0]["metadata"]["namespace"]
    try:
        with undisturbed():
            for manifest, uid in reversed(made):
                cluster.delete(kind_of(manifest), name, namespace, uid=uid)
    except StackError:
        if isinstance(error, StackError):
            with contextlib.suppress(AttributeError):
                error.hint = f"the job is there in part: repeat this command, or stackctl cancel {name} -n {namespace}"


def _ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(row["type"] in ENDS and row["status"] == "True" for row in conditions)
