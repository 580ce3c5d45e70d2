"""Build an image: a pure plan (the buildx command line), then the engine carries it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from stackctl import assets
from stackctl.engines import docker, git
from stackctl.errors import JobFailed
from stackctl.images import buildlog, lockfile, settings
from stackctl.images.buildlog import BuildLog
from stackctl.images.catalog import Target
from stackctl.images.context import build_context
from stackctl.images.lock_list import pins_of
from stackctl.images.settings import Settings

CREATED = "org.opencontainers.image.created"


class BuildPlan(msgspec.Struct, frozen=True):
    """What a build will do.

    `argv` is the whole command line; `secrets` are environment variables that it refers to and that neither
    the image nor its history keeps.
    """

    tag: str
    argv: tuple[str, ...]
    secrets: dict[str, str]


class Pushed(msgspec.Struct, frozen=True):
    """An image in a registry: its name, its digest, whether its provenance is with it, whether it is new there."""

    name: str
    digest: str
    provenance: bool
    new: bool

    @property
    def pinned(self) -> str:
        """The name that can only mean this image; what `cosign sign` takes."""
        return f"{self.name.rpartition(':')[0]}@{self.digest}"


class Built(msgspec.Struct, frozen=True):
    """A finished build. `size` is in bytes, uncompressed; `seconds` is wall time."""

    tag: str
    digest: str
    size: int
    seconds: float
    pushed: Pushed | None = None


def plan(
    target: Target,
    chosen: Settings,
    *,
    context: Path,
    images: Path,
    labels: Mapping[str, str],
    no_cache: bool = False,
    push_as: str = "",
) -> BuildPlan:
    """The buildx command line for a target.

    Args:
        context: The folder that holds images/locks, images/build and images/stackrt.
        images: The folder that holds dockerfiles and locks.
        labels: Labels of the moment, such as the revision. The image is dated as the label of its creation says.
        push_as: Push under this name, with provenance, in place of loading into the engine.
    """
    argv = ["docker", "buildx", "build", *_output(target, chosen, push_as)]
    argv += ["--file", str(images / "dockerfiles" / target.dockerfile)]
    if target.development:
        argv += ["--target", "devel"]
    if no_cache:
        argv += ["--no-cache"]
    if chosen.wheelhouse:
        argv += ["--build-context", f"wheelhouse={chosen.wheelhouse}"]
    if chosen.wheelhouse and chosen.offline:
        argv += ["--network", "none", "--build-context", f"debs={chosen.wheelhouse / 'debs' / target.build_key}"]
    if chosen.ca_bundle:
        argv += ["--secret", f"id=ca,src={chosen.ca_bundle}"]
    secrets = {}
    for name, text in (("uv_toml", settings.uv_toml(chosen)), ("pip_conf", settings.pip_conf(chosen))):
        if text:
            secrets[f"STACK_SECRET_{name.upper()}"] = text
            argv += ["--secret", f"id={name},env=STACK_SECRET_{name.upper()}"]
    for key in chosen.proxies:
        argv += ["--build-arg", key]  # buildx takes the value, which may hold a password, from the environment
    for key, value in _arguments(target, chosen, images).items():
        argv += ["--build-arg", f"{key}={value}"]
    if CREATED in labels:
        argv += ["--build-arg", f"SOURCE_DATE_EPOCH={datetime.fromisoformat(labels[CREATED]).timestamp():.0f}"]
    for key, value in sorted(labels.items()):
        argv += ["--label", f"{key}={value}"]
    return BuildPlan(target.tag, (*argv, str(context)), secrets)


def build(
    target: Target,
    chosen: Settings,
    *,
    no_cache: bool = False,
    verbose: bool = False,
    show: Callable[[str], None] = print,
) -> Built:
    """Build one target and load it into the engine.

    Args:
        show: Is given each line for the person watching.
        verbose: Show all that buildx prints.

    Raises:
        MissingHere: There is no engine or no buildx, its disk is full, or an offline build lacks a file.
        JobFailed: The build failed. The earlier image keeps its name.
    """
    start = time.monotonic()
    if chosen.offline and chosen.wheelhouse:
        from stackctl.images import wheelhouse  # with all that fetches files, which no plan needs

        wheelhouse.check(target, chosen.wheelhouse)
        wheelhouse.load_base(target, chosen, chosen.wheelhouse)
    before = docker.image(target.tag)
    run(planned(target, chosen, no_cache=no_cache), target, chosen, show, verbose=verbose)
    info = docker.image(target.tag)
    if info is None:
        raise JobFailed(f"the build ended, but the engine has no image {target.tag}")
    if before is not None and before.id != info.id:
        docker.remove_replaced(before.id)
    return Built(target.tag, info.id, info.size, time.monotonic() - start)


def planned(target: Target, chosen: Settings, *, no_cache: bool = False, push_as: str = "") -> BuildPlan:
    """The plan for this checkout or installation."""
    images = assets.images_dir()
    labels = git.labels(images)
    context = build_context()
    return plan(target, chosen, context=context, images=images, labels=labels, no_cache=no_cache, push_as=push_as)


def run(
    steps: BuildPlan, target: Target, chosen: Settings, show: Callable[[str], None], *, verbose: bool = False
) -> None:
    """Carry out a plan. Raises as `build`."""
    log = BuildLog(show, verbose=verbose)
    if not docker.build(steps.argv, steps.secrets, log.feed):
        raise buildlog.explain(log.lines, target, chosen, assets.images_dir() / "locks")


def _output(target: Target, chosen: Settings, push_as: str) -> list[str]:
    if not push_as:
        # Provenance holds the time of the build: with it, the same inputs would not give the same digest.
        return ["--load", "--tag", target.tag, "--provenance=false"]
    # The whole provenance holds the values of build arguments, so the proxies' too, and one may have a password.
    mode = "min" if any("@" in value for value in chosen.proxies.values()) else "max"
    return ["--push", "--tag", push_as, f"--provenance=mode={mode}"]


def _arguments(target: Target, chosen: Settings, images: Path) -> dict[str, str]:
    arguments: dict[str, str] = {}
    base = settings.base_image(target, chosen)
    if base != target.base.pinned:
        arguments["BASE_IMAGE"] = base
    if chosen.apt_mirror:
        arguments["APT_MIRROR"] = chosen.apt_mirror
    if target.variant.index:
        if chosen.torch_index is not None:
            arguments["FRAMEWORK_INDEX"] = chosen.torch_index
        elif chosen.wheelhouse and wheels_at_hand(target, chosen.wheelhouse, images):
            arguments["FRAMEWORK_INDEX"] = ""
    return arguments


def wheels_at_hand(target: Target, folder: Path, images: Path) -> bool:
    """Whether a folder holds every package of the framework's layer, so that its index need not be asked."""
    return not lockfile.lacking(pins_of(target, images, "framework"), folder)
