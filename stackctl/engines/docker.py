"""The Docker engine, through its command line, which honours contexts, credential helpers and plugins."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from stackctl.engines import process
from stackctl.errors import CommandFailed, MissingHere
from stackrt.signals import handled

_INSTALL = "install Docker Engine with buildx and compose, or use `--on local`"
_ENGINE_FAILED = 125
"""Exit code of `docker run` when no container was started."""

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
        process.run(["docker", "version", "--format", "{{.Server.Version}}"], hint=_INSTALL)
    except CommandFailed as error:
        reason = (error.output.strip().splitlines() or ["it gave no reason"])[-1]
        raise MissingHere(
            f"the Docker engine does not answer: {reason}",
            hint="start it (`sudo systemctl start docker`, or Docker Desktop), or use `--on local`",
        ) from None
    if plugin:
        try:
            process.run(["docker", plugin, "version"])
        except CommandFailed:
            raise MissingHere(f"the Docker plugin {plugin!r} is not installed", hint=_INSTALL) from None


def image(tag: str) -> ImageInfo | None:
    """The image of that name in the engine's store, or None."""
    try:
        rows = json.loads(process.run(["docker", "image", "inspect", tag]))
    except CommandFailed as error:
        if "no such image" in error.output.lower():
            return None
        raise
    return _info(rows[0])


def images(tags: Sequence[str]) -> dict[str, ImageInfo]:
    """Those of some images that the engine's store has, by name: two calls, however many are asked for."""
    listed = process.run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]).split()
    present = [tag for tag in tags if tag in listed]
    if not present:
        return {}
    rows = json.loads(process.run(["docker", "image", "inspect", *present]))
    return {tag: _info(row) for tag, row in zip(present, rows, strict=True)}


def _info(row: Mapping[str, Any]) -> ImageInfo:
    config = row["Config"]
    labels, env = config.get("Labels") or {}, config.get("Env") or ()
    return ImageInfo(row["Id"], row["Size"], labels, row["Created"], config.get("User") or "", tuple(env))


def free_disk() -> int | None:
    """Bytes free where the engine keeps images; None where that is on another machine."""
    folder = process.run(["docker", "info", "--format", "{{.DockerRootDir}}"]).strip()
    return shutil.disk_usage(folder).free if Path(folder).is_dir() else None


def remove_replaced(digest: str) -> None:
    """Remove an image whose name has gone to a newer one; the engine keeps it where something still uses it."""
    with contextlib.suppress(CommandFailed):
        tags = process.run(["docker", "image", "inspect", "--format", "{{len .RepoTags}}", digest])
        if tags.strip() == "0":
            process.run(["docker", "image", "rm", digest])


def run_script(image: str, script: str, *arguments: str) -> str:
    """Run a Python script in a throw-away container of an image, and return what it prints.

    It may read every file, and write none; it has no network.
    """
    argv = ["docker", "run", "--rm", "--interactive", "--network", "none", "--read-only", "--user", "0:0"]
    argv += ["--cap-drop", "ALL", "--cap-add", "DAC_READ_SEARCH", "--security-opt", "no-new-privileges"]
    argv += ["--entrypoint", "python3", image, "-I", "-", *arguments]
    return process.run(argv, text=script)


def history(image: str) -> list[str]:
    """What made each layer of an image, newest first, as anyone who has the image can read it."""
    rows = process.run(["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image])
    return rows.splitlines()


def pull(name: str) -> None:
    """Fetch an image from its registry; the engine's own words are the error."""
    process.run(["docker", "pull", "--quiet", name], hint="STACK_BASE_REGISTRY names another registry")


def save(name: str, path: Path) -> None:
    """Write an image into an archive."""
    process.run(["docker", "save", "--output", str(path), name])


def load(path: Path) -> str:
    """Give the engine the image of an archive, under the name that it was saved as; returns that name."""
    return process.run(["docker", "load", "--quiet", "--input", str(path)]).strip().removeprefix("Loaded image: ")


def tag(name: str, other: str) -> None:
    """Give an image another name."""
    process.run(["docker", "image", "tag", name, other])


def untag(name: str) -> None:
    """Take a name off an image; the image stays if it has another."""
    process.run(["docker", "image", "rm", "--no-prune", name])


def run_quietly(argv: Sequence[str], *, hint: str = "") -> str:
    """Run a command of the docker client and return what it says."""
    return process.run(argv, hint=hint)


def is_rootless() -> bool:
    """True where the engine maps root in a container to the user who runs the engine."""
    return "rootless" in process.run(["docker", "info", "--format", "{{.SecurityOptions}}"])


def stop_seconds(image: str, name: str) -> float:
    """How long a container of an image takes to end after SIGTERM, in seconds; 10 or more if it had to be killed.

    Args:
        name: A name for the container.

    Raises:
        KeyboardInterrupt: A signal came meanwhile.
    """
    # Once its command speaks, its process 1 has set up its signals: one that came earlier would be lost.
    command = ["sh", "-c", "echo up; exec sleep 600"]
    argv = ["docker", "run", "--rm", "--name", name, "--network", "none", image, *command]
    with (
        _interrupted_after(),
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as running,
    ):
        if running.stdout:
            running.stdout.readline()
        begun = time.monotonic()
        while running.poll() is None:
            _stop(name, 10)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_POLL_SECONDS)
    return round(time.monotonic() - begun, 2)


def run_container(argv: Sequence[str], name: str) -> tuple[int, str]:
    """Run `docker run` in the foreground; its exit code and its standard output. Standard error goes to ours.

    Args:
        name: The container's name. SIGINT, SIGTERM and SIGHUP stop it.

    Raises:
        MissingHere: The engine could not start it; Docker has said why.
        KeyboardInterrupt: It was stopped.
    """
    text: str | None = None
    with _interrupted_after() as stops:
        # A session of its own: Ctrl-C reaches the container through us, once.
        running = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        while text is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                text, _ = running.communicate(timeout=_POLL_SECONDS)
            if stops and text is None:
                _stop(name, 5)
    if running.returncode == _ENGINE_FAILED:
        raise MissingHere("Docker could not start the container", hint="the lines above say why")
    return running.returncode, text


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


def _stop(name: str, seconds: int) -> None:
    """Stop a container. One that is not there, or not yet, is no error: whoever waits for its end asks again."""
    with contextlib.suppress(CommandFailed):
        process.run(["docker", "stop", "--time", str(seconds), name], apart=True)


def build(argv: Sequence[str], secrets: Mapping[str, str], hear: Callable[[str], None]) -> bool:
    """Run `docker buildx build`; the secrets reach it in its environment, where the command line names them.

    Args:
        hear: Is given each line of its plain progress.

    Returns:
        Whether it succeeded.
    """
    return process.lines(argv, hear, env={**os.environ, **secrets, "BUILDKIT_PROGRESS": "plain"}, hint=_INSTALL) == 0
