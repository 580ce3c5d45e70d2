"""A job: what to run, on how many nodes and ranks. Checked once, here; every backend takes it as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import workloads
from stackrt.contract import MOST_NODES, MOST_PROCS, PREFIX, TIMEOUT, Bind, Device
from stackrt.frameworks import DEFAULT

INIT = ("/usr/bin/tini", "--")
"""Process 1 of a container: a signal that comes before the launcher hears signals would be lost on it as process 1.

It is the entrypoint of our images, and given anyway: an image built on ours may have another.
"""

STOP_MARGIN = 10
"""Seconds that a backend waits longer than the launcher, which kills the ranks when the job's own grace is over."""

LONGEST = 7 * 24 * 3600
"""Seconds."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training job.

    `procs` is the number of ranks on each node; `gpus` is the number of GPUs on each node, 0 on a CPU, and where
    there are GPUs each rank has one, and keeps to the CPUs near it unless `bind` is `none`; where `procs` is 1,
    that rank has all of them. `timeout` is how long nodes wait for one another at the start, and `grace` how long ranks
    may take to end when the job is stopped, in seconds.
    """

    name: str
    workload: str = ""
    command: tuple[str, ...]
    image: str
    framework: str
    nodes: int
    procs: int
    gpus: int = 0
    device: Device = "auto"
    env: dict[str, str] = {}
    timeout: int = TIMEOUT
    grace: int = 60
    bind: Bind = "auto"

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.procs

    @property
    def all_gpus(self) -> bool:
        """Whether the one rank of a node takes all of its GPUs, however many that are."""
        return self.procs == 1 and (self.gpus > 1 or self.workload in workloads.alone())


def make(
    *,
    name: str,
    workload: str = "",
    arguments: Sequence[str] = (),
    image: str | None = None,
    framework: str | None = None,
    nodes: int = 1,
    procs: int | None = None,
    gpus: int = 0,
    device: Device | None = None,
    seed: int | None = None,
    env: Mapping[str, str] | None = None,
    timeout: int = TIMEOUT,
    grace: int = 60,
    bind: Bind = "auto",
) -> Job:
    """Check what a person asked for and make the job of it.

    Args:
        workload: A reference job's name; `arguments` then are its arguments. Without one they are the command.
        image: Name of an image in the catalog; the workload's own by default.
        framework: What a command of the user's own expects of the launcher, of stackrt's FRAMEWORKS.
        device: What ranks use; with `gpus`, `cpu` holds the GPUs without using them, to try a cluster out.

    Raises:
        InvalidInput: Something does not fit; names the option.
    """
    _check_name(name)
    if image is not None and not image.strip():
        raise InvalidInput("is empty", where="--image", hint="leave it out, or name an image (`stackctl images`)")
    _between("--nodes", nodes, 1, MOST_NODES)
    _between("--gpus", gpus, 0, MOST_PROCS)
    if seed is not None:
        _between("--seed", seed, 0, 2**32 - 1)
    if procs is not None:
        _between("--procs", procs, 1, MOST_PROCS)
    if gpus and procs not in (None, 1, gpus):
        raise InvalidInput(
            f"{gpus} GPUs and {procs} ranks on a node do not go together",
            where="--procs",
            hint="each GPU has one rank, or one rank has all of them (--procs 1): leave out --procs, or --gpus "
            "to train on the CPU",
        )
    _between("--timeout", timeout, 1, LONGEST)
    _between("--grace", grace, 0, LONGEST)
    if cut := next((word for word in arguments if "\0" in word), ""):
        raise InvalidInput("a word of a command cannot hold a zero byte", where=repr(cut))
    extra = _checked_env(env or {})
    ranks = 1 if procs == 1 else gpus or procs or 1
    if workload:
        row = workloads.find(workload)
        if row.alone:
            _one_process(workload, nodes, procs)
            ranks = 1
        command = (*row.command, *(("--seed", str(seed)) if seed is not None else ()), *arguments)
        default_image, framework = row.image, row.framework
    else:
        if not arguments:
            raise InvalidInput(
                "nothing to run", hint="name a workload (`stackctl workloads`), or put a command behind `--`"
            )
        command, default_image, framework = tuple(arguments), "pytorch", framework or DEFAULT
        if seed is not None:
            extra.setdefault("SEED", str(seed))
    return Job(
        name=name,
        workload=workload,
        command=command,
        image=image or default_image,
        framework=framework,
        nodes=nodes,
        procs=ranks,
        gpus=gpus,
        device=device or ("cuda" if gpus else "cpu" if procs else "auto"),
        env=extra,
        timeout=timeout,
        grace=grace,
        bind=bind,
    )


def check(job: Job) -> None:
    """See that a job that was written down is one that could have been made.

    Raises:
        InvalidInput: It is not: somebody has edited the file.
    """
    _check_name(job.name)
    for option, number, low, high in (
        ("nodes", job.nodes, 1, MOST_NODES),
        ("procs", job.procs, 1, MOST_PROCS),
        ("gpus", job.gpus, 0, MOST_PROCS),
        ("timeout", job.timeout, 1, LONGEST),
        ("grace", job.grace, 0, LONGEST),
    ):
        _between(option, number, low, high)
    if not job.command:
        raise InvalidInput("is empty", where="command")
    _checked_env(job.env, text=False)


def check_text(words: Sequence[str]) -> None:
    """See that a command can be put into a manifest, which is text.

    Raises:
        InvalidInput: It holds bytes that are not UTF-8, as names of old files do; processes take them as they are.
    """
    for word in words:
        if not _is_text(word):
            shown = word.encode(errors="surrogateescape").decode(errors="replace")
            raise InvalidInput("is not UTF-8, and manifests are", where=shown, hint="rename that file")


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def launcher(python: str, job: Job) -> tuple[str, ...]:
    """The command line of a node's launcher. `-P` keeps modules of the working folder from standing in for its own."""
    bind = () if job.bind == "auto" else ("--bind", job.bind)
    return (python, "-P", "-m", "stackrt.launch", "--grace", str(job.grace), *bind, "--", *job.command)


def contract(job: Job, node: int, *, rendezvous: str, out: str, attempt: int = 1) -> dict[str, str]:
    """The launch contract of one node, but for the token, which never enters a plan."""
    return {
        "STACK_RUN": job.name,
        "STACK_ATTEMPT": str(attempt),
        "STACK_NODES": str(job.nodes),
        "STACK_NODE_RANK": str(node),
        "STACK_PROCS": str(job.procs),
        "STACK_DEVICE": job.device,
        "STACK_RENDEZVOUS": rendezvous,
        "STACK_FRAMEWORK": job.framework,
        "STACK_OUT": out,
        "STACK_TIMEOUT": str(job.timeout),
        **({"STACK_ALL_GPUS": "1"} if job.all_gpus else {}),
        **job.env,
    }


def _one_process(workload: str, nodes: int, procs: int | None) -> None:
    for option, number, word in (("--nodes", nodes, "node"), ("--procs", procs or 1, "rank")):
        if number > 1:
            raise InvalidInput(
                f"{workload} is one process, and takes all GPUs of its node: it has 1 {word}",
                where=f"{option} {number}",
                hint="leave it out; `stackctl workloads` lists those that train on several",
            )


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "a run's name has lower-case letters, digits and dashes, 50 at most, and no dash at its ends",
            where=f"--name {name}",
        )


def _between(option: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"must be from {low} to {high:,}", where=f"{option} {value}")


def _checked_env(env: Mapping[str, str], *, text: bool = True) -> dict[str, str]:
    if not env:
        return {}
    from stackrt.launch.rank_env import layout_names

    placed = layout_names()
    for key, value in env.items():
        if not _ENV_NAME.fullmatch(key):
            raise InvalidInput("is not a name for an environment variable", where=f"--env {key}")
        if key.startswith(PREFIX):
            raise InvalidInput(f"names that start with {PREFIX} are the launcher's own", where=f"--env {key}")
        if key in placed:
            raise InvalidInput(
                "is the launcher's to set: each rank has its own", where=f"--env {key}", hint="see docs/launcher.md"
            )
        if "\0" in value:
            raise InvalidInput("a value cannot hold a zero byte", where=f"--env {key}")
        if text and not _is_text(value):
            raise InvalidInput("its value is not UTF-8, and job files and manifests are", where=f"--env {key}")
    return dict(env)
