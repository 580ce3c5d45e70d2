"""Docker Compose projects: start one, show its output, wait for its containers, remove it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

from stackctl.engines import docker_api, process
from stackctl.engines.docker_api import EngineSilent
from stackctl.engines.local import STRAGGLER_SECONDS
from stackctl.errors import CommandFailed, MissingHere, NameTaken, StackError
from stackrt.signals import NOTICES, STOPS, TOGETHER, handled

if TYPE_CHECKING:
    from docker import APIClient
    from docker.types import CancellableStream

_SERVICE = "com.docker.compose.service"
_PROJECT = "com.docker.compose.project"
_FILE = "com.docker.compose.project.config_files"
_ALIVE = ("running", "paused", "restarting")
_LAST_WORDS_SECONDS = 5
_PATIENT_STOPS = 3
"""After so many stops a further one does not wait for the engine."""


def run(file: Path, project: str, secrets: Mapping[str, str], streams: tuple[int, int] = (1, 2)) -> list[int]:
    """Start a project, follow its output, wait until all its containers have ended, and remove it.

    Returns:
        The containers' exit codes, in the order of their services' names.

    A stop signal stops the containers (Compose sends SIGTERM and waits for the stop_grace_period); a later one kills
    them. SIGUSR1 and SIGUSR2 go on to the launchers.

    Args:
        secrets: Environment variables that the file refers to.
        streams: Descriptors for the containers' output and errors.

    Raises:
        CommandFailed: Compose could not start the project; nothing of it is left.
        NameTaken: Another run has begun under the name; it is left alone.
    """
    env = {**os.environ, **secrets}
    base = ["docker", "compose", "--file", str(file), "--project-name", project]
    stops: list[subprocess.Popen[bytes]] = []
    notices: list[subprocess.Popen[bytes]] = []
    stopped_at = 0.0
    left: AbstractContextManager[None] = nullcontext()

    def hear(number: int) -> None:
        nonlocal stopped_at
        now = time.monotonic()
        if number in NOTICES:
            notices.append(_start([*base, "kill", "--signal", signal.Signals(number).name], env))
        elif not stops:
            stopped_at = now
            stops.append(_start([*base, "stop"], env))
        elif now - stopped_at > TOGETHER and number != signal.SIGHUP:  # a terminal that closes may send it twice
            if len(stops) > _PATIENT_STOPS:
                raise KeyboardInterrupt  # the engine may not answer
            stops.append(_start([*base, "kill"], env))

    try:
        with handled(hear, (*STOPS, *NOTICES)):
            # Containers of the name that another run made meanwhile are left as they are.
            up = ["up", "--detach", "--no-build", "--no-recreate", "--pull", "never", "--quiet-pull"]
            process.run([*base, *up], env=env)
            if stops:
                stops.append(_start([*base, "stop"], env))  # the first saw only the containers that were there
            with docker_api.connected(patient=True) as client:
                return _watched(client, file, project, streams)
    except CommandFailed as error:
        if stops:
            raise KeyboardInterrupt from None  # Ctrl-C ended a docker command of ours as well
        if names := others(project, file):
            raise taken(project, names) from None
        if "could not select device driver" in error.output:
            raise MissingHere(
                "Docker has no NVIDIA runtime here",
                hint="install the NVIDIA container toolkit, or train on the CPU with --procs",
            ) from None
        raise
    except EngineSilent as error:
        left = suppress(CommandFailed)  # as little as this will be answered
        hint = f"once it answers, remove what is left with `docker compose -p {project} down`"
        raise EngineSilent(error.message, hint=hint) from None
    finally:
        begun = time.monotonic()

        def spoil(_number: int) -> None:
            if time.monotonic() - begun > STRAGGLER_SECONDS:
                raise KeyboardInterrupt  # it hangs

        with handled(spoil), left:
            _remove(file, project, env, "--timeout", "0")
            for running in (*stops, *notices):
                running.wait()


def own(project: str, file: Path, *, running: bool = False) -> list[str]:
    """The names of the containers that were made from a project's file, running or not, or of those that run."""
    with docker_api.connected() as client:
        return _names(_own(client, project, file, running=running))


def others(project: str, file: Path) -> list[str]:
    """The names of containers of a project of this name that were made from another file: another run's."""
    with docker_api.connected() as client:
        return _names([row for row in _all(client, project) if not _is_of(row, file)])


def taken(project: str, names: Sequence[str]) -> NameTaken:
    """The error of a name whose containers are another's."""
    return NameTaken(
        f"there are containers of a Compose project of this name: {', '.join(names)}",
        where=f"--name {project}",
        hint=f"choose another, or remove them with `docker compose -p {project} down`",
    )


def end(file: Path, project: str) -> None:
    """Stop the containers that were made from a file, as a stop signal does, and remove all of the project."""
    _remove(file, project, {**os.environ, "STACK_TOKEN": "none"})


def _remove(file: Path, project: str, env: Mapping[str, str], *options: str) -> None:
    """Remove a project; of one that shares its name with another run's, its own containers."""
    with suppress(StackError):
        if others(project, file):
            with docker_api.connected() as client:
                for row in _own(client, project, file):
                    client.remove_container(row["Id"], force=True)
            return
    argv = ["docker", "compose", "--file", str(file), "--project-name", project, "down", *options, "--remove-orphans"]
    process.run(argv, env=env, apart=True)


def _of(project: str) -> dict[str, str]:
    return {"label": f"{_PROJECT}={project}"}


def _all(client: APIClient, project: str, *, running: bool = False) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.containers(all=not running, filters=_of(project))
    return found


def _own(client: APIClient, project: str, file: Path, *, running: bool = False) -> list[dict[str, Any]]:
    return [row for row in _all(client, project, running=running) if _is_of(row, file)]


def _is_of(row: Mapping[str, Any], file: Path) -> bool:
    """Whether a container was made from a file, which may be named by way of a link."""
    return os.path.realpath((row.get("Labels") or {}).get(_FILE) or "") == os.path.realpath(file)


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name.removeprefix("/") for row in rows for name in (row["Names"] or ())[:1]]


def _watched(client: APIClient, file: Path, project: str, streams: tuple[int, int]) -> list[int]:
    """Show what the containers of a project print, and wait until all have ended; returns their exit codes.

    Once one has failed, the others get a while and are killed.

    Raises:
        EngineSilent: It has gone before they ended.
        NameTaken: They are those of another run.
    """
    from docker.errors import APIError

    rows = sorted(_own(client, project, file), key=lambda row: row["Labels"][_SERVICE])
    if not rows:
        raise taken(project, _names(_all(client, project)))
    keys = [row["Id"] for row in rows]
    died = {**_of(project), "type": "container", "event": "die"}
    events = client.events(since=min(row["Created"] for row in rows), filters=died, decode=True)
    ends = docker_api.in_background(events)
    ended: dict[str, int] = {}
    kill_at: float | None = None
    try:
        with _shown(client, keys, streams):
            for row in _own(client, project, file):
                if row["State"] not in _ALIVE:  # the engine keeps but the last few events of all that it runs
                    ended[row["Id"]] = client.inspect_container(row["Id"])["State"]["ExitCode"]
            while not ended.keys() >= set(keys):
                if kill_at is None and any(ended.values()):
                    kill_at = time.monotonic() + STRAGGLER_SECONDS
                with suppress(Empty):
                    event = ends.get(timeout=None if kill_at is None else max(0, kill_at - time.monotonic()))
                    if event is None:
                        raise EngineSilent("the Docker engine has gone while containers were running")
                    if event["Actor"]["ID"] in keys:
                        ended[event["Actor"]["ID"]] = int(event["Actor"]["Attributes"]["exitCode"])
                if kill_at is not None and time.monotonic() > kill_at:
                    for key in set(keys) - ended.keys():
                        with suppress(APIError):  # it ends just now
                            client.kill(key)
                    kill_at = time.monotonic() + STRAGGLER_SECONDS
    finally:
        docker_api.hang_up(events)
    return [ended[key] for key in keys]


@contextmanager
def _shown(client: APIClient, containers: Sequence[str], into: tuple[int, int]) -> Iterator[None]:
    """Within the block, what containers print is printed, each by a thread; after it, for a while, what is left.

    `compose logs` would add its own lines and terminal codes; each line already names its rank.
    """
    streams: list[CancellableStream[tuple[int, bytes]]] = []
    turn = threading.Lock()
    told: set[str | None] = set()

    def show(container: str) -> None:
        from docker.errors import APIError
        from requests import RequestException

        with suppress(OSError, RequestException):  # our reader or the engine has gone; the containers go on
            try:
                streams.append(docker_api.output(client, container, "logs"))
            except APIError as error:
                with turn:
                    if error.explanation not in told:
                        told.add(error.explanation)
                        said = f"note: no output comes: the engine says: {error.explanation}\n"
                        docker_api.write(into[1], said.encode())
                return
            for kind, data in docker_api.whole_lines(streams[-1]):
                with turn:
                    docker_api.write(into[kind != 1], data)

    # Not an executor's: one that waits for a slow reader of our output would keep us from ending.
    threads = [threading.Thread(target=show, args=(container,), daemon=True) for container in containers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough = time.monotonic() + _LAST_WORDS_SECONDS
        for thread in threads:
            thread.join(max(0, enough - time.monotonic()))
        for stream in streams:
            docker_api.hang_up(stream)


def _start(argv: list[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own, so that Ctrl-C in the terminal does not end it.
    return subprocess.Popen(
        argv,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
