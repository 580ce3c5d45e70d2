"""The Docker engine: its images through the docker package, builds and pulls through the client.

The package has neither BuildKit nor the client's way to registries.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stackctl.engines import process
from stackctl.engines.docker_api import INSTALL, EngineRefused, EngineSilent, connected
from stackctl.errors import CommandFailed, MissingHere

if TYPE_CHECKING:
    from docker import APIClient


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
        return _inspect(client, tag)


def images(tags: Sequence[str]) -> dict[str, ImageInfo]:
    """Those of some images that the engine's store has, by name: its own list may have longer names, as Podman's."""
    with connected() as client:
        rows = {tag: _inspect(client, tag) for tag in tags}
    return {tag: _info(row) for tag, row in rows.items() if row is not None}


def _inspect(client: APIClient, tag: str) -> dict[str, Any] | None:
    from docker.errors import NotFound  # of an image too, where an engine says so in words of its own

    try:
        row: dict[str, Any] = client.inspect_image(tag)
    except NotFound:
        return None
    return row


def _info(row: Mapping[str, Any]) -> ImageInfo:
    config = row.get("Config") or {}
    labels, env = config.get("Labels") or {}, config.get("Env") or ()
    return ImageInfo(row["Id"], row["Size"], labels, row.get("Created", ""), config.get("User") or "", tuple(env))


def about() -> dict[str, Any]:
    """What the engine says of itself.

    Source: https://docs.docker.com/reference/api/engine/version/v1.47/#tag/System/operation/SystemInfo
    """
    with connected() as client:
        row: dict[str, Any] = client.info()
        return row


def free_disk() -> int | None:
    """Bytes free where the engine keeps images; None where that is on another machine, or not for this user to see."""
    try:
        return shutil.disk_usage(about()["DockerRootDir"]).free
    except OSError:
        return None


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


def build(argv: Sequence[str], secrets: Mapping[str, str], hear: Callable[[str], None]) -> bool:
    """Run `docker buildx build`; the secrets reach it in its environment, where the command line names them.

    Args:
        hear: Is given each line of its plain progress.

    Returns:
        Whether it succeeded.
    """
    return process.lines(argv, hear, env={**os.environ, **secrets, "BUILDKIT_PROGRESS": "plain"}, hint=INSTALL) == 0
