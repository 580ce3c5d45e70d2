"""The way into a run's nodes: a program beside a rank, and a port of it on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from stackctl.errors import InvalidInput, MissingHere
from stackctl.jobs.job import Job
from stackctl.jobs.kubernetes import CONTAINER
from stackctl.runs.handle import Forwarded, Tell
from stackctl.runs.states import State

if TYPE_CHECKING:  # what is not used is not imported
    from stackctl.engines.kube import Cluster
    from stackctl.engines.wire import Session

_LOOK_SECONDS = 2.0
"""Between two looks whether a run whose port is forwarded goes on."""

_PYTHON = ("python", "-P", "-m")
_ENTER, _RELAY = "stackrt.launch.enter", "stackrt.launch.relay"


class Inside(Protocol):
    """The way into a run's nodes."""

    here: bool
    """Whether their ports are this machine's."""

    def execute(self, job: Job, rank: int, command: Sequence[str], *, tty: bool) -> int:
        """Run a command beside a rank, or a shell; its exit code."""

    def connect(self, job: Job, rank: int, port: int) -> Session:
        """A connection to a port of a rank's node."""

    def stop(self, job: Job) -> None:
        """Ask the node of a service to end."""


class Port(msgspec.Struct, frozen=True):
    """A port of a rank of a run, and under which number it is to be reached here; None for the same."""

    run: str
    rank: int
    number: int
    local: int | None


def has_ended(name: str, state: State) -> InvalidInput:
    """What is said of a run that has no processes any more."""
    said = "has gone" if state == "gone" else f"has ended ({state})"
    return InvalidInput(f"{said}: nothing of it runs", where=name, hint=f"`stackctl logs {name}` has what it printed")


@contextmanager
def forwarded(port: Port, inside: Inside, job: Job, goes_on: Callable[[], bool], tell: Tell) -> Iterator[Forwarded]:
    """Within the block, a port can be reached on this machine.

    Raises:
        MissingHere: The number is taken here.
        StackError: There is no connection.
    """
    from stackctl.engines import forward

    what = f"port {port.number} of rank {port.rank} of {port.run}"
    if inside.here and port.local in (None, port.number):
        address = f"{forward.LOOPBACK}:{port.number}"
        text = f"{port.run} runs on this machine, so nothing needs to be forwarded: {what} is {address}"
        yield Forwarded(address, text, lambda: None)
        return
    if not inside.here:
        inside.connect(job, port.rank, port.number).close()  # what is not allowed is said now, and once

    def stay() -> None:
        while goes_on():
            time.sleep(_LOOK_SECONDS)

    def problem(text: str) -> None:
        tell(f"note: {what}: {text}")

    with forward.listening(
        port.number if port.local is None else port.local,
        lambda: inside.connect(job, port.rank, port.number),
        problem,
    ) as number:
        address = f"{forward.LOOPBACK}:{number}"
        yield Forwarded(address, f"{address} is {what}, until Ctrl-C or its end", stay)


class Processes:
    """The way to processes of this machine."""

    here = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def execute(self, job: Job, rank: int, command: Sequence[str], *, tty: bool) -> int:
        """Run a command beside a rank; a terminal is ours."""
        from stackctl.engines import local
        from stackrt.launch import enter

        try:
            found = enter.find(job.name, *divmod(rank, job.procs), out=str(self._folder))
            argv, env = enter.plan(found, command, os.environ)
        except enter.CannotEnter as error:
            refused = MissingHere(error.message, hint=error.hint)
            refused.exit_code = error.code
            raise refused from None
        return local.beside(argv, env, Path(found.folder))

    def connect(self, job: Job, rank: int, port: int) -> Session:
        """A connection to a port of this machine."""
        from stackctl.engines import forward

        return forward.local(port)

    def stop(self, job: Job) -> None:
        """Ask the launcher, which asks the rank."""
        from stackrt.launch import enter

        try:
            enter.stop(job.name, out=str(self._folder))
        except enter.CannotEnter as error:
            raise MissingHere(error.message, hint=error.hint) from None


class Containers:
    """The way to containers of a Compose project."""

    here = False

    def __init__(self, project: str) -> None:
        self._project = project

    def execute(self, job: Job, rank: int, command: Sequence[str], *, tty: bool) -> int:
        """Run a command beside a rank, in its container."""
        from stackctl.engines.container_exec import Executed

        tty = tty and _is_terminal()
        return _attended(Executed(self._container(job, rank), _enter(job, rank, command), tty=tty), tty=tty)

    def connect(self, job: Job, rank: int, port: int) -> Session:
        """A connection to a port of its container, by a program in it: its networks may not be this machine's."""
        from stackctl.engines.container_exec import Executed

        return Executed(self._container(job, rank), [*_PYTHON, _RELAY, str(port)], tty=False)

    def stop(self, job: Job) -> None:
        """Ask its container."""
        from stackctl.engines import container

        container.stop(self._container(job, 0), job.grace)

    def _container(self, job: Job, rank: int) -> str:
        from stackctl.engines import container_exec

        node = rank // job.procs
        labels = {"com.docker.compose.project": self._project, "com.docker.compose.service": f"node-{node}"}
        found = container_exec.find(labels)
        if found is None:
            raise MissingHere(f"node {node} has no container that runs", where=self._project)
        return found


class Pod:
    """The way into a pod."""

    here = False

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name

    def execute(self, job: Job, rank: int, command: Sequence[str], *, tty: bool) -> int:
        """Run a command beside a rank, in its pod."""
        from stackctl.engines.kube_exec import Executed

        tty, argv = tty and _is_terminal(), _enter(job, rank, command)
        session = Executed(self._cluster, self._namespace, self._name, CONTAINER, argv, tty=tty)
        return _attended(session, tty=tty)

    def connect(self, job: Job, rank: int, port: int) -> Session:
        """A connection to a port of the pod."""
        from stackctl.engines.kube_exec import Forwarded as Connection

        return Connection(self._cluster, self._namespace, self._name, port)

    def stop(self, job: Job) -> None:
        """Ask its pod: another may come in its place."""
        self._cluster.delete("Pod", self._name, self._namespace)


def _enter(job: Job, rank: int, command: Sequence[str]) -> list[str]:
    """The command line in a container: the launcher's own image finds the rank and takes its place beside it."""
    return [*_PYTHON, _ENTER, job.name, *map(str, divmod(rank, job.procs)), *command]


def _is_terminal() -> bool:
    from stackctl.engines import terminal

    return terminal.is_terminal()


def _attended(session: Session, *, tty: bool) -> int:
    from stackctl.engines import terminal

    last = b""

    def hear(output: bytes) -> None:
        nonlocal last
        last = (last + output)[-200:]

    code = terminal.attend(session, tty=tty, hear=hear)
    if code == 1 and f"No module named {_ENTER}".encode() in last:
        raise MissingHere("the launcher in the run's image is older than this command", hint="build the image anew")
    return code
