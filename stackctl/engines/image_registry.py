"""What a registry has under a name, through the docker client, which knows the user's logins and private CAs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from stackctl.engines import docker, process
from stackctl.errors import CommandFailed, JobFailed, MissingHere

_SETTINGS = ("Cmd", "Entrypoint", "Env", "Labels", "User", "WorkingDir")


class Content(msgspec.Struct, frozen=True):
    """What makes an image this one and no other: its layers, and what its configuration says.

    The digest is not the measure: it differs with the form that an engine's store keeps the same image in.
    """

    layers: tuple[str, ...]
    settings: dict[str, Any]


class Published(msgspec.Struct, frozen=True):
    """What a name in a registry stands for.

    `digest` is that of its manifest; `attested` says whether attestations are with it. `content` is None where the
    registry holds images of several platforms.
    """

    digest: str
    content: Content | None
    attested: bool


def look_up(reference: str) -> Published | None:
    """What a name stands for; None if the registry has no such name.

    Source: https://github.com/opencontainers/image-spec/blob/main/manifest.md

    Raises:
        MissingHere: The registry does not answer.
        JobFailed: It does not let this user read.
    """
    text = _inspect(reference, "--raw")
    if text is None:
        return None
    rows: list[dict[str, Any]] = json.loads(text).get("manifests", [])
    kinds = [row.get("annotations", {}).get("vnd.docker.reference.type", "") for row in rows]
    content = _remote(reference) if kinds.count("") <= 1 else None
    return Published(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", content, "attestation-manifest" in kinds)


def local(name: str) -> Content:
    """The content of an image in the engine's store."""
    row = docker.inspect(name)
    if row is None:
        raise JobFailed(f"the Docker engine has no image {name}")
    return _content(row["RootFS"]["Layers"], row["Config"])


def push(name: str, reference: str) -> None:
    """Push a local image under another name, and take that name off again, whatever came of it.

    A registry shows the name only after every layer is there, so a push that breaks off leaves none.

    Raises:
        MissingHere: The registry does not answer.
        JobFailed: It does not let this user write, or the push broke off.
    """
    docker.tag(name, reference)
    try:
        process.run(["docker", "push", "--quiet", reference])
    except CommandFailed as error:
        raise explain(error, reference) from None
    finally:
        docker.untag(reference)


def attests() -> bool:
    """Whether the engine's builder can push attestations: it can with containerd's image store.

    Source: https://docs.docker.com/build/metadata/attestations/
    """
    return "io.containerd.snapshotter" in json.dumps(docker.about().get("DriverStatus"))


def explain(error: CommandFailed, reference: str) -> JobFailed | MissingHere:
    """The client's words about a registry, as one error."""
    host = reference.partition("/")[0]
    said = (error.output.strip().splitlines() or ["it gave no reason"])[-1].removeprefix("ERROR: ")
    lower = said.lower()
    if any(word in lower for word in ("unauthorized", "denied", "forbidden", "authentication required", "401", "403")):
        return JobFailed(
            f"the registry {host} does not let you: {said}", where=reference, hint=f"log in with `docker login {host}`"
        )
    if any(word in lower for word in ("refused", "no such host", "timeout", "timed out", "unreachable", "reset")):
        return MissingHere(
            f"the registry {host} does not answer: {said}", where=reference, hint="check its name and your network"
        )
    return JobFailed(f"the registry {host} says: {said}", where=reference)


def _remote(reference: str) -> Content | None:
    image = json.loads(_inspect(reference, "--format", "{{json .Image}}") or "null")
    if image and "rootfs" not in image:  # a table by platform
        image = next(iter(image.values()))
    return _content(image["rootfs"]["diff_ids"], image["config"]) if image else None


def _content(layers: list[str], config: dict[str, Any]) -> Content:
    return Content(tuple(layers), {key: config[key] for key in _SETTINGS if config.get(key)})


def _inspect(reference: str, *options: str) -> str | None:
    try:
        return process.run(["docker", "buildx", "imagetools", "inspect", reference, *options])
    except CommandFailed as error:
        if "not found" in error.output.lower():
            return None
        raise explain(error, reference) from None
