"""Push a built image to a registry under a name that is never given to another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from stackctl import __version__, assets
from stackctl.engines import image_registry
from stackctl.errors import InvalidInput, JobFailed, NameTaken
from stackctl.images import build, render
from stackctl.images.build import Built, Pushed
from stackctl.images.catalog import Target
from stackctl.images.settings import Settings
from stackrt.contract import LOCK_LABEL

_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def check(targets: Sequence[Target], repository: str) -> None:
    """See, before long builds, that images can be named below a repository and that its registry answers.

    Raises:
        InvalidInput: That is no name of a repository.
        MissingHere: The registry does not answer.
        JobFailed: It does not let this user read.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidInput(
            "is no place for images in a registry",
            where=f"--push {repository}",
            hint="give HOST/PATH in small letters, without a scheme or a tag: registry.example/team",
        )
    for target in targets[:1]:
        image_registry.look_up(name(target, repository, assets.images_dir()))


def name(target: Target, repository: str, images: Path) -> str:
    """`REPO/pytorch:0.1.0-cpu-bea4a3f441a8`: the version, the variant, and the identity of the locked packages."""
    lock = render.labels(target, images)[LOCK_LABEL]
    variant = target.build_key.removeprefix(f"{target.name}-")
    return f"{repository}/{target.name}:{__version__}-{variant}-{lock[:12]}"


def push(target: Target, built: Built, repository: str, chosen: Settings, show: Callable[[str], None]) -> Pushed:
    """Push a built image; what is there already is left as it is.

    Its provenance goes with it where the engine's builder can make it.

    Raises:
        NameTaken: The name stands for another image.
        MissingHere: The registry does not answer.
        JobFailed: It does not let this user write, or the push broke off.
    """
    reference = name(target, repository, assets.images_dir())
    there = image_registry.look_up(reference)
    if there is not None:
        if there.content != image_registry.local(built.tag):
            raise NameTaken(
                "the registry has another image of this name, and names are never given twice",
                where=reference,
                hint="it was built from another commit with the same locks: raise the version, or push elsewhere",
            )
        return Pushed(reference, there.digest, there.attested, new=False)
    if image_registry.attests():
        build.run(build.planned(target, chosen, push_as=reference), target, chosen, show)
    else:
        image_registry.push(built.tag, reference)
    there = image_registry.look_up(reference)
    if there is None:
        raise JobFailed("the registry took the image, but has no such name", where=reference)
    return Pushed(reference, there.digest, there.attested, new=True)
