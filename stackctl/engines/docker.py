"""The Docker engine: its images and containers through the docker package, builds and pulls through the client.

The package has neither BuildKit nor the client's way to registries.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import msgspec

from stackctl.engines import docker_api, process
from stackctl.engines.docker_api import INSTALL, EngineRefused, EngineSilent, connected
from stackctl.engines.local import signals
from stackctl.errors import CommandFailed, MissingHere

if TYPE_CHECKING:
    from docker import APIClient

_POLL_SECONDS = 0.2
_PATIENT_SIGNALS = 2


class ImageInfo(msgspec.Struct, frozen=True):
    """What the engine knows of an image. `size` is in bytes, uncompressed; `env` has `NAME=value` each."""

    id: str
    size: int
    labels: dict[str, str]
    created: str
    user: str = ""
    env: tuple[str, ...] = ()


def require(plugin: str = "") -> None:
    """See that the client is installed, the engine answers and the plugin (buildx, compose) is there.

    Raises:
        MissingHere: One of them is not; says which.
    """
    try:
        with connected() as client:
            client.ping()
    except EngineSilent as error:
        hint = "start it (`sudo systemctl start docker`, or Docker Desktop), or use `--on local`"
        if "ermission denied" in error.message:
            hint = "let this user use it (`sudo usermod -aG docker $USER`, then log in again), or use `--on local`"
        raise MissingHere(error.message, hint=hint) from None
    if plugin:
        try:
            process.run(["docker", plugin, "version"])
        except CommandFailed:
            raise MissingHere(f"the Docker plugin {plugin!r} is not installed", hint=INSTALL) from None


def image(tag: str) -> ImageInfo | None:
    """The image of that name in the engine's store, or None."""
    row = inspect(tag)
    return None if row is None else _info(row)


def inspect(tag: str) -> dict[str, Any] | None:
    """All that the engine says of an image; None if it has none of that name.

    Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/Image/operation/ImageInspect
    """
    with connected() as client:
        from docker.errors import ImageNotFound

        try:
            row: dict[str, Any] = client.inspect_image(tag)
        except ImageNotFound:
            return None
        return row


def images(tags: Sequence[str]) -> dict[str, ImageInfo]:
    """Those of some images that the engine's store has, by name: one call, and one more for each that is there."""
    with connected() as client:
        listed = {tag for row in client.images() for tag in row["RepoTags"] or ()}
        return {tag: _info(client.inspect_image(tag)) for tag in tags if tag in listed}


def _info(row: Mapping[str, Any]) -> ImageInfo:
    config = row["Config"]
    labels, env = config.get("Labels") or {}, config.get("Env") or ()
    return ImageInfo(row["Id"], row["Size"], labels, row["Created"], config.get("User") or "", tuple(env))


def about() -> dict[str, Any]:
    """What the engine says of itself.

    Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/System/operation/SystemInfo
    """
    with connected() as client:
        row: dict[str, Any] = client.info()
        return row


def free_disk() -> int | None:
    """Bytes free where the engine keeps images; None where that is on another machine."""
    folder = about()["DockerRootDir"]
    return shutil.disk_usage(folder).free if Path(folder).is_dir() else None


def is_rootless() -> bool:
    """True where the engine maps root in a container to the user who runs the engine."""
    return any("rootless" in option for option in about().get("SecurityOptions") or ())


def remove_replaced(digest: str) -> None:
    """Remove an image whose name has gone to a newer one; the engine keeps it where something still uses it."""
    with contextlib.suppress(EngineRefused), connected(patient=True) as client:
        if not client.inspect_image(digest)["RepoTags"]:
            client.remove_image(digest)


def history(image: str) -> list[str]:
    """What made each layer of an image, newest first, as anyone who has the image can read it."""
    with connected() as client:
        return [row["CreatedBy"] for row in client.history(image)]


def save(name: str, path: Path) -> None:
    """Write an image into an archive."""
    with connected(patient=True) as client, path.open("wb") as archive:
        for part in client.get_image(name):
            archive.write(part)


def load(path: Path) -> str:
    """Give the engine the image of an archive, under the name that it was saved as; returns that name.

    Raises:
        EngineRefused: The archive holds none.
    """
    with connected(patient=True) as client, path.open("rb") as archive:
        said = list(client.load_image(archive, quiet=True))
    for row in said:
        if loaded := row.get("stream"):
            return str(loaded).strip().removeprefix("Loaded image: ")
    why = said[-1].get("error") if said else "it is empty"
    raise EngineRefused(f"the Docker engine says: {why}", where=str(path))


def tag(name: str, other: str) -> None:
    """Give an image another name."""
    with connected() as client:
        from docker.utils import parse_repository_tag

        client.tag(name, *parse_repository_tag(other))


def untag(name: str) -> None:
    """Take a name off an image; the image stays if it has another."""
    with connected(patient=True) as client:
        client.remove_image(name, noprune=True)


def pull(name: str) -> None:
    """Fetch an image from its registry; the engine's own words are the error."""
    process.run(["docker", "pull", "--quiet", name], hint="STACK_BASE_REGISTRY names another registry")


def run_quietly(argv: Sequence[str], *, hint: str = "") -> str:
    """Run a command of the docker client and return what it says."""
    return process.run(argv, hint=hint)


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


def run_container(config: Mapping[str, Any], name: str) -> tuple[int, str]:
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
                os.write(2, data)

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


def _run(config: Mapping[str, Any], name: str, hear: Callable[[int, bytes], None]) -> int:
    """Run a container to its end and return its exit code.

    Args:
        hear: Is given what it prints: 1 or 2, for standard output or error, and bytes.
    """
    with _interrupted_after() as stops, connected(patient=True) as client, _container(client, config, name) as key:
        # Both before its start: the first byte is not missed, nor is its end.
        output = docker_api.output(client, key, "attach")
        end = docker_api.ask(client, "POST", key, "wait", condition="removed")
        client.start(key)
        arriving = docker_api.in_background(output)
        while True:
            with contextlib.suppress(Empty):
                frame = arriving.get(timeout=_POLL_SECONDS)
                if frame is None:
                    break
                hear(*frame)
            if stops:
                _stop(client, key, 5)
        docker_api.hang_up(output)
        code: int = end.json()["StatusCode"]
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
            client.remove_container(key, v=True, force=True)


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

    with signals(note):
        yield stops
    if stops:
        raise KeyboardInterrupt


def build(argv: Sequence[str], secrets: Mapping[str, str], hear: Callable[[str], None]) -> bool:
    """Run `docker buildx build`; the secrets reach it in its environment, where the command line names them.

    Args:
        hear: Is given each line of its plain progress.

    Returns:
        Whether it succeeded.
    """
    return process.lines(argv, hear, env={**os.environ, **secrets, "BUILDKIT_PROGRESS": "plain"}, hint=INSTALL) == 0
