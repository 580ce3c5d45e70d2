"""Containers that are run to their end, through the docker package, and leave nothing behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from queue import Empty
from typing import TYPE_CHECKING, Any

from stackctl.engines import docker_api
from stackctl.engines.docker_api import EngineRefused, EngineSilent, connected
from stackctl.errors import CommandFailed, MissingHere
from stackrt.signals import handled

if TYPE_CHECKING:
    from docker import APIClient

_POLL_SECONDS = 0.2
_PATIENT_SIGNALS = 2
_REMOVAL_SECONDS = 30


def run_script(image: str, script: str, *arguments: str) -> str:
    """Run a Python script in a throw-away container of an image, and return what it prints.

    It may read every file, and write none; it has no network.

    Raises:
        CommandFailed: It ended with another exit code than 0; carries its last lines.
    """
    limits = {"NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"], "CapAdd": ["DAC_READ_SEARCH"]}
    command = ["python3", "-I", "-c", script, *arguments]
    config = {
        "Image": image,
        "Entrypoint": command,
        "User": "0:0",
        "HostConfig": {**limits, "SecurityOpt": ["no-new-privileges"]},
    }
    printed: dict[int, list[bytes]] = {1: [], 2: []}
    code = _run(config, "", lambda kind, data: printed[kind].append(data))
    out, told = (b"".join(printed[kind]).decode(errors="replace") for kind in (1, 2))
    if code != 0:
        raise CommandFailed(["docker", "run", image], code, told or out)
    return out


def run(config: Mapping[str, Any], name: str) -> tuple[int, str]:
    """Run a container to its end; its exit code and its standard output. Standard error goes to ours.

    Args:
        config: What the engine's API takes.
        name: The container's name. SIGINT, SIGTERM and SIGHUP stop it.

    Raises:
        MissingHere: The engine could not start it.
        KeyboardInterrupt: It was stopped.
    """
    printed: list[bytes] = []

    def hear(kind: int, data: bytes) -> None:
        if kind == 1:
            printed.append(data)
        else:
            with contextlib.suppress(OSError):
                docker_api.write(2, data)

    try:
        code = _run(config, name, hear)
    except EngineRefused as error:
        raise MissingHere(f"no container can be started: {error.message}") from None
    return code, b"".join(printed).decode(errors="replace")


def stop_seconds(image: str, name: str) -> float:
    """How long a container of an image takes to end after SIGTERM, in seconds; 10 or more if it had to be killed.

    Args:
        name: A name for the container.

    Raises:
        KeyboardInterrupt: A signal came meanwhile.
    """
    # Once its command speaks, its process 1 has set up its signals: one that came earlier would be lost.
    command = ["sh", "-c", "echo up; exec sleep 600"]
    config = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": "none"}}
    with _interrupted_after(), connected(patient=True) as client, _container(client, config, name) as key:
        said = docker_api.output(client, key, "attach")
        client.start(key)
        next(said, None)
        begun = time.monotonic()
        client.stop(key, timeout=10)
        seconds = time.monotonic() - begun
        docker_api.hang_up(said)
    return round(seconds, 2)


def stop(key: str, seconds: int) -> None:
    """Ask a container to end, and see that it does, within so many seconds."""
    with connected() as client:
        _stop(client, key, seconds)


def _run(config: Mapping[str, Any], name: str, hear: Callable[[int, bytes], None]) -> int:
    """Run a container to its end and return its exit code.

    Args:
        hear: Is given what it prints: 1 or 2, for standard output or error, and bytes.
    """
    code = None
    with _interrupted_after() as stops, connected(patient=True) as client, _container(client, config, name) as key:
        # Both before its start: the first byte is not missed, nor is its end.
        output = docker_api.output(client, key, "attach")
        end = docker_api.ask(client, "POST", key, "wait", condition="removed")

        def story() -> Iterator[tuple[int, bytes] | int]:
            yield from output
            yield int(end.json()["StatusCode"])

        client.start(key)
        arriving = docker_api.in_background(story())
        while code is None:
            with contextlib.suppress(Empty):
                event = arriving.get(timeout=_POLL_SECONDS)
                if event is None:
                    raise EngineSilent("the Docker engine has gone while the container was running")
                if isinstance(event, int):
                    code = event
                else:
                    hear(*event)
            if stops:
                _stop(client, key, 5)
        docker_api.hang_up(output)
    return code


def _stop(client: APIClient, key: str, seconds: int) -> None:
    from docker.errors import APIError

    with contextlib.suppress(APIError):  # it has ended meanwhile
        client.stop(key, timeout=seconds)


@contextmanager
def _container(client: APIClient, config: Mapping[str, Any], name: str) -> Iterator[str]:
    """Within the block, a container that is not started yet; its id. It goes when it ends, and with the block."""
    from docker.errors import APIError

    limits = {**config["HostConfig"], "AutoRemove": True}
    key: str = client.create_container_from_config({**config, "HostConfig": limits}, name or None)["Id"]
    try:
        yield key
    finally:
        with contextlib.suppress(APIError):  # as a rule it has gone
            try:
                client.remove_container(key, v=True, force=True)
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise
                # The engine is removing it by itself, having seen its end: until then its name is taken.
                client.wait(key, timeout=_REMOVAL_SECONDS, condition="removed")


@contextmanager
def _interrupted_after() -> Iterator[list[int]]:
    """Within the block signals are only noted, in this list; after it they interrupt.

    The third interrupts at once, should the engine not answer.
    """
    stops: list[int] = []

    def note(number: int) -> None:
        stops.append(number)
        if len(stops) > _PATIENT_SIGNALS:
            raise KeyboardInterrupt

    with handled(note):
        yield stops
    if stops:
        raise KeyboardInterrupt
