"""The job that a person asks for in Python, and what its arguments are checked against."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from stackctl.errors import InvalidInput, StackError
from stackctl.jobs import job as jobs
from stackctl.runs import asking
from stackctl.runs.handle import Tell
from stackrt.contract import TIMEOUT, Bind, Device

S = TypeVar("S", bound=msgspec.Struct)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, and on how many nodes and ranks.

    Either `command`, your own, or `workload`, a reference job (`stackctl workloads`) with its `arguments`.

    Args:
        command: Program and arguments of each rank, as `["python", "mine.py"]`.
        workload: Name of a reference job, as `gpt`.
        arguments: The workload's arguments.
        name: The run's name; by default it is made of the command and the time.
        image: An image of the catalog, or any image; by default the workload's, else `pytorch`.
        framework: Whose variables the ranks of `command` get: `torch`, `tensorflow` or `horovod`.
        nodes: Number of nodes.
        procs: Ranks on each node, on the CPU; 1 by default.
        gpus: GPUs on each node, with a rank for each; 0 for none.
        device: What ranks train on, `cpu` or `cuda`; by default what fits.
        seed: A workload's `--seed`, or SEED in the environment of `command`.
        env: Environment of the ranks, beside what the launcher sets.
        bind: `auto` keeps each rank to the CPUs near its GPU, `none` does not.
        timeout: Seconds that nodes wait for one another at the start.
        grace: Seconds that ranks may take to end when the job is stopped.
    """

    command: Sequence[str] = ()
    workload: str = ""
    arguments: Sequence[str] = ()
    name: str | None = None
    image: str | None = None
    framework: str | None = None
    nodes: int = 1
    procs: int | None = None
    gpus: int = 0
    device: Device | None = None
    seed: int | None = None
    env: Mapping[str, str] = {}
    timeout: int = TIMEOUT
    grace: int = 60
    bind: Bind = "auto"


def made(job: Job, tell: Tell, *, containers: bool, for_cluster: bool) -> jobs.Job:
    """The job that every backend takes.

    Args:
        tell: Is told what is worth it.
        containers: Its ranks are in containers.
        for_cluster: Its name is to begin with a letter.

    Raises:
        InvalidInput: Something does not fit; names the argument.
    """
    asked = checked(job)
    words = asked.arguments if asked.workload else asked.command
    if asked.workload and asked.command:
        raise InvalidInput("a workload has `arguments`, and your own command has all in `command`", where="command")
    if not asked.workload and asked.arguments:
        raise InvalidInput("are a workload's: put all into `command`", where="arguments")
    if not (asked.workload or words):
        raise InvalidInput("nothing to run: give a command, or a workload's name", where="Job")
    if containers:
        jobs.check_text(words)
    return jobs.make(
        name=asked.name or asking.free_name(asked.workload, words, for_cluster=for_cluster),
        workload=asked.workload,
        arguments=words,
        image=asked.image,
        framework=asking.framework(asked.image, asked.framework, asked.workload, tell),
        nodes=asked.nodes,
        procs=asked.procs,
        gpus=asked.gpus,
        device=asked.device or ("cpu" if containers and not asked.gpus else None),
        seed=asked.seed,
        env=asked.env,
        timeout=asked.timeout,
        grace=asked.grace,
        bind=asked.bind,
    )


def checked(given: S) -> S:
    """The same with every value of its own type: a list will do for a tuple, and a text for a path.

    Raises:
        InvalidInput: A value is of another type; names the argument.
    """

    def path(kind: type, value: object) -> object:
        if kind is Path and isinstance(value, str | os.PathLike):
            return Path(value)
        # As msgspec says it of its own types.
        raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")

    try:
        return msgspec.convert(msgspec.structs.asdict(given), type(given), dec_hook=path)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise InvalidInput(what, where=where.strip("`") or type(given).__name__) from None


@contextmanager
def as_arguments() -> Iterator[None]:
    """Within the block, an error names an argument in place of the command line's option."""
    try:
        yield
    except StackError as error:
        found = re.fullmatch(r"--([a-z-]+)(?: (.*))?", error.where, re.DOTALL)
        if found:
            name, value = found[1].replace("-", "_"), found[2]
            error.where = name if value is None else f"{name}={value}"
        raise
