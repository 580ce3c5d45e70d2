"""Resolve an image's packages into hashed locks, with uv."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stackctl.engines import process
from stackctl.errors import CommandFailed, InvalidInput, JobFailed
from stackctl.images import lockfile
from stackctl.images.catalog import Base, Target, Tools
from stackctl.images.render import lock_names, read_lock
from stackctl.images.settings import Settings


def requirements(target: Target) -> str:
    """What the catalog asks of the resolver, one requirement a line."""
    return "\n".join(sorted((*target.variant.framework_packages, *target.image.packages))) + "\n"


def fingerprint(target: Target) -> str:
    """Identity of a resolver's question: the requirements, the Python and the platform."""
    question = f"{requirements(target)}{target.base.python} {target.base.wheel_platform}"
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def check(target: Target, images: Path) -> None:
    """See that the locks were made from the catalog as it stands.

    Raises:
        InvalidInput: A lock is absent or older than the catalog.
    """
    for name in lock_names(target):
        path = images / "locks" / name
        if f"# requirements: {fingerprint(target)}" not in read_lock(path, target):
            raise InvalidInput(
                "does not answer to the catalog as it stands",
                where=str(path),
                hint=f"run `stackctl lock {target.name} --variant {target.variant_name}`",
            )


def resolve(target: Target, settings: Settings) -> dict[str, str]:
    """Ask uv for the exact versions and hashes of an image's packages.

    Returns:
        File name below images/locks -> text: the framework's layer, then everything else.

    Raises:
        JobFailed: The requirements conflict; carries uv's own words.
    """
    options: list[str] = []
    # A wheelhouse stands in for the framework's own index only: elsewhere, a wheel with a local version
    # (2.13.0+cpu) would also satisfy the plain one (2.13.0) that a CUDA variant asks for.
    if target.variant.index and settings.wheelhouse:
        options = ["--find-links", str(settings.wheelhouse)]
    elif target.variant.index:
        options = ["--index", target.variant.index, "--index-strategy", "unsafe-best-match"]
    where = f"images.{target.name}.variants.{target.variant_name}"
    pins = _compile(requirements(target), target.base, options, where)
    framework, others = lockfile.split(pins, target.image.framework_layer)
    header = [
        f"{target.name} ({target.variant_name}). Made by `stackctl lock {target.name}`; do not edit.",
        f"requirements: {fingerprint(target)}",
    ]
    return dict(zip(lock_names(target), (lockfile.write(part, header) for part in (framework, others)), strict=True))


def resolve_tools(base: Base, tools: Tools) -> dict[str, str]:
    """The lock of what a build uses and leaves behind: file name below images/locks -> text."""
    pins = _compile(f"uv=={tools.uv}\n", base, [], "tools.uv")
    return {"tools.txt": lockfile.write(pins, ["Tools of a build. Made by `stackctl lock`; do not edit."])}


def _compile(question: str, base: Base, options: list[str], where: str) -> list[lockfile.Pin]:
    argv = ["uv", "pip", "compile", "-", "--generate-hashes", "--quiet", "--no-header", "--no-annotate"]
    argv += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", base.python]
    argv += ["--python-platform", base.wheel_platform, *options]
    try:
        answer = process.run(argv, text=question, hint="install it with `pip install uv`")
    except CommandFailed as error:
        raise JobFailed(
            f"no set of versions fits the catalog's requirements\n{error.output.strip()}",
            where=where,
            hint="change the versions in images/catalog.toml so that they agree",
        ) from None
    return lockfile.parse(answer)
