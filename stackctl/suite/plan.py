"""How the suite is started in an image: command lines, and the job for several nodes. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from stackctl.errors import InvalidInput
from stackctl.jobs import job as jobs
from stackctl.jobs.job import Job

SUITE = ("python", "-P", "-m", "stackrt.checks")
REPORT = "report.json"
"""Name of the report in the run's folder, where there are several nodes."""

_SHARED_GIB = 1
_NO_MORE_RIGHTS = "no-new-privileges:true"


class Selection(msgspec.Struct, frozen=True):
    """What to check, and what must be there: the suite's own options."""

    only: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    burn: float = 0.0

    @property
    def words(self) -> tuple[str, ...]:
        """The suite's command line for it."""
        words: list[str] = []
        for option, values in (("--only", self.only), ("--tag", self.tags), ("--require", self.require)):
            words += [option, *values] if values else []
        return (*words, *(("--burn", f"{self.burn:g}") if self.burn else ()))


def with_gpus(chosen: Selection, gpus: int) -> Selection:
    """The same, for nodes that were given GPUs: to see fewer is a failure, unless a number is asked for already."""
    if not gpus or any(word.isdigit() for word in chosen.require):
        return chosen
    return msgspec.structs.replace(chosen, require=(*chosen.require, str(gpus)))


def check(chosen: Selection, frameworks: frozenset[str] | None) -> None:
    """See that the names and tags mean something, before anything is started.

    Args:
        frameworks: Those in the image; None for an image that the catalog does not have.

    Raises:
        InvalidInput: No check of such an image has that name or tag; or what is required makes no sense.
    """
    from stackrt.checks import options, registry

    checks = registry.belonging(registry.load().values(), frameworks)
    try:
        options.see_burn(chosen.burn, registry.select(checks, chosen.only, chosen.tags))
        options.required(chosen.require)
    except (registry.UnknownNameError, options.UsageError) as error:
        raise InvalidInput(str(error)) from None


def container(image: str, chosen: Selection, *, name: str, gpus: bool) -> tuple[str, ...]:
    """The command line of the suite in one container, its report on standard output, for a person to copy.

    Args:
        name: The container's name.
        gpus: Give it all GPUs of this machine.
    """
    rights = ["--cap-drop", "ALL", "--security-opt", _NO_MORE_RIGHTS]
    devices = ["--gpus", "all", "--ulimit", "memlock=-1"] if gpus else []
    run = ["docker", "run", "--rm", "--name", name, "--shm-size", f"{_SHARED_GIB}g", *rights, *devices, image]
    return (*run, *_command(chosen, ""))


def config(image: str, chosen: Selection, *, seen: str, gpus: bool) -> dict[str, Any]:
    """The same container as the engine's API takes it.

    Args:
        seen: What the engine knows of the image, as the suite's --seen takes it.
        gpus: Give it all GPUs of this machine.

    Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/Container/operation/ContainerCreate
    """
    limits: dict[str, Any] = {"ShmSize": _SHARED_GIB << 30, "CapDrop": ["ALL"], "SecurityOpt": [_NO_MORE_RIGHTS]}
    if gpus:
        limits["DeviceRequests"] = [{"Count": -1, "Capabilities": [["gpu"]]}]
        limits["Ulimits"] = [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    return {"Image": image, "Cmd": list(_command(chosen, seen)), "HostConfig": limits}


def _command(chosen: Selection, seen: str) -> tuple[str, ...]:
    told = ("--seen", seen) if seen else ()
    return (*SUITE, *chosen.words, *told, "--json", "-", "--report-only")


def job(image: str, chosen: Selection, *, name: str, nodes: int, timeout: int = 60, gpus: int | None = None) -> Job:
    """The suite as a job: one rank on each node, which makes its node's checks; node 0 has the report of all.

    Args:
        timeout: Seconds that nodes wait for one another.
        gpus: Of each pod in a cluster, where the report goes into the log; without it it is a file in the run's folder.
    """
    report = ("--json", f"/out/{REPORT}") if gpus is None else ("--packed",)
    words = (*SUITE, *chosen.words, *report, "--report-only")
    made = jobs.make(name=name, arguments=words, image=image, nodes=nodes, gpus=gpus or 0, timeout=timeout, grace=10)
    # One rank for all GPUs: `cpu` is for the launcher, which would give each rank one. The suite finds them by itself.
    return msgspec.structs.replace(made, procs=1, device="cpu")
