"""What a run has kept on its claim, once its pods are gone: read by a short pod of our own, into the run's folder."""

from __future__ import annotations

import contextlib
import secrets
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from stackctl.engines.kube import Cluster
from stackctl.engines.kube_errors import where_allowed
from stackctl.errors import MissingHere, StackError
from stackctl.jobs import claim_reader, pod_options
from stackctl.jobs.placement import OUT
from stackctl.runs import admission, claim_script, explain, logs, objects
from stackctl.runs.bounds import LimitRange
from stackctl.runs.evidence import Facts
from stackctl.runs.store import Record
from stackrt.checks import log_codec
from stackrt.checks.log_codec import Unpacked
from stackrt.signals import undisturbed

LOOK_SECONDS, PATIENCE = 0.5, 60.0
"""Between two looks at the pod, and until when it must have started and ended."""

CLOCKS_DIFFER = 300.0
"""Seconds by which the clock of a file's server may be behind that of who submitted."""


class Source(msgspec.Struct, frozen=True):
    """Where a run's outputs are: a claim in a namespace, an image that has Python to read them with, and where.

    `node_choice` is what the pod that reads them takes over from the run's pods: `pod_options.SURROUNDINGS`.
    """

    run: str
    namespace: str
    claim: str
    image: str
    since: float
    """Unix time before which no file there is of this run: an earlier one may have had the name."""
    node_choice: dict[str, Any]


class File(msgspec.Struct, frozen=True):
    """A file of a run: its path in the run's folder, how many bytes of its start are left out, its bytes as latin-1."""

    name: str
    cut: int
    changed: float
    text: str


class Kept(msgspec.Struct, frozen=True):
    """What was read: of which attempt, and its files."""

    attempt: int
    files: tuple[File, ...]

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON file's object; None if it is not there."""
        for file in self.files:
            if file.name == name:
                with contextlib.suppress(msgspec.DecodeError):
                    found = msgspec.json.decode(file.text.encode("latin-1"))
                    return found if isinstance(found, dict) else None
        return None

    def save(self, folder: Path) -> list[str]:
        """Put the files into a run's folder; returns the names of those that lack their start."""
        cut = []
        for file in self.files:
            path, data = folder / file.name, file.text.encode("latin-1")
            if file.cut:
                cut.append(file.name)
                if path.exists() and path.stat().st_size > len(data):
                    continue  # more of it came while somebody followed
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return cut


def source_of(job: objects.KubeJob) -> Source | None:
    """Where a run on the cluster keeps its outputs; None if they went with its pods."""
    pod = job.spec.template.get("spec") or {}
    claims = {
        row["name"]: row["persistentVolumeClaim"]["claimName"]
        for row in pod.get("volumes") or []
        if "persistentVolumeClaim" in row
    }
    for container in pod.get("containers") or []:
        for mount in container.get("volumeMounts") or []:
            if mount["mountPath"] == OUT and mount["name"] in claims:
                about = job.metadata
                claim, since = claims[mount["name"]], _time(about.creation_timestamp)
                chosen = pod_options.surroundings(pod)
                return Source(about.name, about.namespace, claim, container["image"], since, chosen)
    return None


def source_in(record: Record) -> Source | None:
    """Where a run of the run store keeps its outputs, though the cluster has it no more."""
    if not record.claim:
        return None
    since = _time(record.started)
    return Source(record.name, record.namespace, record.claim, record.image, since, record.node_choice)


def read(cluster: Cluster, source: Source, *, attempt: int = 0, pattern: str = "") -> Kept:
    """Read a run's files from its claim.

    Args:
        attempt: Whose logs; 0 for the newest.
        pattern: Which logs, as `rank-*`; empty for none.

    Raises:
        MissingHere: The pod did not start or did not end; says why.
        ApiError: The cluster refuses it.
    """
    if cluster.get("PersistentVolumeClaim", source.claim, source.namespace) is None:
        raise MissingHere(f"the namespace {source.namespace} has it no more")
    name = f"stackctl-read-{secrets.token_hex(4)}"
    command = ["python", "-I", "-c", program(), f"{OUT}/{source.run}", str(attempt), pattern]
    plan = claim_reader.manifest(
        name,
        source.namespace,
        claim=source.claim,
        image=source.image,
        command=command,
        node_choice=source.node_choice,
        amounts=admission.fitted(claim_reader.AMOUNTS, ranges(cluster, source.namespace)),
    )
    uid = ""
    try:
        uid = str(cluster.create(plan)[0]["metadata"]["uid"])
        text = _printed(cluster, name, source.namespace, uid)
    finally:
        with undisturbed(), contextlib.suppress(StackError):  # it goes by itself, too
            cluster.delete("Job", name, source.namespace, uid=uid)
    kept = msgspec.json.decode(text, type=Kept)
    return Kept(kept.attempt, tuple(file for file in kept.files if file.changed > source.since - CLOCKS_DIFFER))


def ranges(cluster: Cluster, namespace: str) -> list[LimitRange]:
    """The namespace's limit ranges; none where we may not see them."""
    with where_allowed():
        return cluster.items("LimitRange", LimitRange, namespace)
    return []


def program() -> str:
    """What the pod runs, sent whole: the code in the run's image may be older. It prints lines for `Unpacked`."""
    sources = [Path(module.__file__ or "").read_text(encoding="utf-8") for module in (log_codec, claim_script)]
    return "\n".join([*sources, "import sys", "print(*pack(collect(*sys.argv[1:])), sep='\\n')", ""])


def _printed(cluster: Cluster, name: str, namespace: str, uid: str) -> str:
    """What the pod has printed when it has ended."""
    selector = f"batch.kubernetes.io/controller-uid={uid}"
    deadline = time.monotonic() + PATIENCE
    while True:
        pods = cluster.items("Pod", objects.Pod, namespace, labelSelector=selector)
        # What else is in the pod may keep it.
        ended = [pod for pod in pods if pod.status.phase in ("Succeeded", "Failed") or pod.state.terminated]
        if ended:
            break
        if time.monotonic() > deadline:
            raise MissingHere(f"the pod that reads it did not start: {why_waiting(cluster, name, namespace, pods)}")
        time.sleep(LOOK_SECONDS)
    unpacked, said = Unpacked(), b""
    for line in logs.read(cluster, namespace, ended[0].metadata.name):
        if not unpacked.take(line.decode(errors="replace")):
            said = line
    if not unpacked.text:
        raise MissingHere(f"the pod that reads it printed nothing of use: {said.decode(errors='replace')}")
    return unpacked.text


def why_waiting(cluster: Cluster, name: str, namespace: str, pods: list[objects.Pod]) -> str:
    """Why a pod of ours does not run, in the cluster's words."""
    job = cluster.get("Job", name, namespace)
    if job is None:
        return "it was removed"
    found = msgspec.convert(job, objects.KubeJob)
    events = [
        event
        for about in [name, *(pod.metadata.name for pod in pods)]
        for event in cluster.items("Event", objects.Event, namespace, fieldSelector=f"involvedObject.name={about}")
    ]
    return explain.explain(Facts(found, pods, events)).sentence


def _time(stamp: str) -> float:
    """Unix time of an ISO 8601 time; 0 for none."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() if stamp else 0.0
