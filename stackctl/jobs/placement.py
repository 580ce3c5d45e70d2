"""How a job is placed in a cluster: what a person asked for beside the job itself. Checked once, here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import mounts, pod_options, quantity
from stackctl.jobs.job import Job
from stackctl.jobs.pod_options import PodOptions, PodSettings
from stackctl.jobs.profiles import Profile
from stackctl.jobs.via import JOB
from stackrt.contract import PREFIX, STACK

OUT, WORKSPACE, PACKED = "/out", "/workspace", "/stack/code"
"""Where pods see their outputs, the shipped code, and the archive that it came in."""

OWN_KEY = "env."
"""Of a run's own Secret: what stands before a variable's name there."""

MOST_RETRIES = 100

PREFERRED = "preferred"
"""Behind a topology: the pods are kept together if that can be."""

KEPT = 7 * 24 * 3600
"""Seconds that a finished Job stays, with its pods and their logs, before Kubernetes removes it."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOPOLOGY = re.compile(r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_TAKEN = ("/stack", "/dev", "/proc", "/sys", "/etc", str(STACK), "/opt/venv")


class Volume(msgspec.Struct, frozen=True):
    """A persistent volume claim, and where the pods see it."""

    claim: str
    path: str
    read_only: bool = False


class SecretEnv(msgspec.Struct, frozen=True):
    """An environment variable whose value is a key of a Secret: of the run's own, if none is named."""

    name: str
    secret: str
    key: str


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what a job's pods run. Amounts are a node's; `shm` is the size of /dev/shm.

    `retries` is how often the whole job starts anew after a failure. `code` is the SHA-256 of the shipped archive, or
    of the tree of files that the claim `code_claim` holds. `topology` is the label of nodes that a queue keeps the pods
    together by, as of a rack; with `:preferred` if it can.
    `apart` gives each pod a machine of its own. `kept` is how long the finished Job stays, in seconds. `profile` is
    what of the cluster's profile counts for this job, and `pods` what else was asked of them. `via` is what gives the
    job to the cluster, and `api` the group and version in which the cluster serves that. `gang` is how the cluster is
    told to place all nodes at once or none, as `jobs.gang` has it; empty if it is not.
    """

    namespace: str
    profile: Profile
    image: str
    cpu: str = ""
    cpu_limit: str = ""
    memory: str = ""
    ephemeral_storage: str = ""
    shm: str
    volumes: tuple[Volume, ...] = ()
    secret_env: tuple[SecretEnv, ...] = ()
    queue: str = ""
    topology: str = ""
    priority: str = ""
    retries: int = 3
    code: str = ""
    code_claim: str = ""
    apart: bool = False
    kept: int = KEPT
    pods: PodSettings = PodSettings()
    via: str = JOB
    api: str = ""
    gang: str = ""

    @property
    def claim(self) -> str:
        """The claim that keeps outputs, since it is mounted where they are written; empty if there is none."""
        return next((volume.claim for volume in self.volumes if volume.path == OUT and not volume.read_only), "")


def place(
    job: Job,
    *,
    namespace: str,
    profile: Profile,
    image: str,
    cpu: str | None = None,
    cpu_limit: str | None = None,
    memory: str | None = None,
    ephemeral_storage: str | None = None,
    shm: str | None = None,
    volumes: Sequence[str] = (),
    secret_env: Sequence[str] = (),
    queue: str | None = None,
    topology: str | None = None,
    priority: str | None = None,
    retries: int = 3,
    code: str = "",
    code_claim: str | None = None,
    apart: bool = False,
    kept: int = KEPT,
    pods: PodOptions = PodOptions(),  # noqa: B008 - frozen
    via: str = JOB,
    api: str = "",
    gang: str = "",
) -> Placement:
    """Check what a person asked for.

    Args:
        image: The image's full name.
        volumes: `claim[:path][:ro]`; the first without a path goes where outputs are written.
        secret_env: `NAME=secret:key`, or `NAME` for a value of the run's own Secret.
        kept: How long the finished Job stays where `pods` does not say.
        via: What gives the job to the cluster, one of VIAS; a manager in the version that `api` names.

    Raises:
        InvalidInput: Something does not fit; names the option.
    """
    if not job.name[0].isalpha():
        raise InvalidInput("on Kubernetes a run's name starts with a letter", where=f"--name {job.name}")
    _matches("--namespace", namespace, _LABEL, "a namespace has lower-case letters, digits and dashes, 63 at most")
    for option, name, form, rule in (
        ("--queue", queue, _LABEL_VALUE, "a queue's name goes into a label: 63 characters at most"),
        ("--priority", priority, _NAME, "a priority class has lower-case letters, digits, dashes and dots"),
        ("--code-claim", code_claim, _NAME, "a claim's name has lower-case letters, digits, dashes and dots"),
    ):
        if name:
            _matches(option, name, form, rule)
    if topology:
        _check_topology(topology, queue)
    if not 0 <= retries <= MOST_RETRIES:
        raise InvalidInput(f"must be from 0 to {MOST_RETRIES}", where=f"--retries {retries}")
    if not image or image != image.strip() or any(c.isspace() for c in image):
        raise InvalidInput("is not an image's name", where=f"--image {image!r}")
    for option, text, example in (
        ("--cpu", cpu, "8 or 500m"),
        ("--cpu-limit", cpu_limit, "8 or 500m"),
        ("--memory", memory, "64Gi"),
        ("--ephemeral-storage", ephemeral_storage, "100Gi"),
        ("--shm", shm, "16Gi"),
    ):
        if text is not None:
            quantity.check(option, text, example)
    if cpu and cpu_limit and quantity.value(cpu) > quantity.value(cpu_limit):
        raise InvalidInput("asks for more than the limit allows", where=f"--cpu {cpu} --cpu-limit {cpu_limit}")
    if shm and memory and quantity.value(shm) > quantity.value(memory):
        raise InvalidInput(
            "shared memory counts as memory, so it cannot be larger", where=f"--shm {shm} --memory {memory}"
        )
    taken = (*_TAKEN, OUT, WORKSPACE) if code else (*_TAKEN, OUT)
    chosen = _volumes(volumes, taken)
    settings = pod_options.settings(pods, taken, {volume.path: volume.claim for volume in chosen})
    only_read = {volume.claim for volume in chosen if volume.read_only}
    for mount in settings.mounts:
        if mount.kind == "claim" and mount.name in only_read and not mount.read_only:
            raise InvalidInput(
                f"--volume mounts {mount.name} read-only", where=f"--mount at {mount.path}", hint="add :ro here, too"
            )
    return Placement(
        namespace=namespace,
        profile=profile.effective(gpus=job.gpus > 0),
        image=image,
        cpu=cpu or "",
        cpu_limit=cpu_limit or "",
        memory=memory or "",
        ephemeral_storage=ephemeral_storage or "",
        shm=shm or _default_shm(job, memory),
        volumes=chosen,
        secret_env=_secret_env(secret_env, job),
        queue=queue or "",
        topology=topology or "",
        priority=priority or "",
        retries=retries,
        code=code,
        code_claim=code_claim or "",
        apart=apart,
        kept=settings.kept or kept,
        pods=settings,
        via=via,
        api=api,
        gang=gang,
    )


def output_claim(volumes: Sequence[str]) -> str:
    """The claim that would keep outputs; empty if there is none.

    Raises:
        InvalidInput: As `place`.
    """
    return next((row.claim for row in _volumes(volumes, (*_TAKEN, OUT, WORKSPACE)) if row.path == OUT), "")


def _check_topology(text: str, queue: str | None) -> None:
    where = f"--topology {text}"
    if not queue:
        raise InvalidInput("only a queue places pods by it", where=where, hint="name Kueue's queue with --queue")
    label, colon, wish = text.partition(":")
    if (colon and wish != PREFERRED) or not _TOPOLOGY.fullmatch(label):
        hint = f"for example --topology topology.kubernetes.io/zone:{PREFERRED}"
        raise InvalidInput(f"must be a label of nodes, with :{PREFERRED} if it is only a wish", where=where, hint=hint)


def _default_shm(job: Job, memory: str | None) -> str:
    """1 GiB a rank: the usual 64 MB is too little for data loaders and NCCL. No more than half of the memory."""
    mebibytes = 1024 * job.procs
    if memory:
        mebibytes = max(1, min(mebibytes, int(quantity.value(memory) / 2**21)))
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"


def _volumes(given: Sequence[str], taken: Sequence[str]) -> tuple[Volume, ...]:
    volumes: list[Volume] = []
    for text in given:
        where = f"--volume {text}"
        claim, *rest = text.split(":")
        read_only = rest[-1:] == ["ro"]
        rest = rest[:-1] if read_only else rest
        if len(rest) > 1 or rest == [""]:
            raise InvalidInput("must be claim[:path][:ro]", where=where, hint="for example --volume data:/data:ro")
        _matches(where, claim, _NAME, "a claim's name has lower-case letters, digits, dashes and dots")
        path = str(PurePosixPath(rest[0])) if rest else OUT
        if path == OUT and read_only:
            raise InvalidInput("outputs are written to /out", where=where, hint="give another path, or leave out :ro")
        free = [folder for folder in taken if folder != OUT] if path == OUT else taken
        path = mounts.point(where, path, free, {row.path: row.claim for row in volumes})
        volumes.append(Volume(claim, path, read_only))
    return tuple(volumes)


def _secret_env(given: Sequence[str], job: Job) -> tuple[SecretEnv, ...]:
    if not given:
        return ()
    from stackrt.launch.rank_env import layout_names

    chosen: list[SecretEnv] = []
    for text in given:
        where = f"--secret-env {text}"
        name, equals, source = text.partition("=")
        secret, colon, key = source.partition(":")
        if equals and not (colon and _NAME.fullmatch(secret) and _KEY.fullmatch(key)):
            hint = "for example WANDB_API_KEY=wandb:api-key; WANDB_API_KEY alone takes your own value"
            where = f"--secret-env {name}=…"  # behind it a value may stand, which is nobody's to see
            raise InvalidInput("must be NAME=secret:key, or NAME", where=where, hint=hint)
        if not _ENV_NAME.fullmatch(name) or name.startswith(PREFIX):
            what = f"names that start with {PREFIX} are the launcher's own" if name.startswith(PREFIX) else "is no name"
            raise InvalidInput(what, where=where)
        if name in layout_names():
            raise InvalidInput("is the launcher's to set: each rank has its own", where=f"--secret-env {name}")
        if name in job.env or name in {row.name for row in chosen}:
            raise InvalidInput(f"{name} is set twice", where=where)
        chosen.append(SecretEnv(name, secret, key or OWN_KEY + name))
    return tuple(chosen)


def _matches(where: str, text: str, form: re.Pattern[str], rule: str) -> None:
    if not form.fullmatch(text):
        raise InvalidInput(rule, where=where if text in where else f"{where} {text}")
