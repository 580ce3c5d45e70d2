"""Checks of a built image: labels, packages, size, user, secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from stackctl.engines import docker
from stackctl.engines.docker import ImageInfo
from stackctl.errors import JobFailed
from stackctl.images import inventory, render, secrets
from stackctl.images.catalog import Target
from stackctl.images.inventory import Finding, Inventory
from stackctl.images.lock_list import pins_of
from stackctl.validate.results import SKIPPED, Result, attempt

ROOT_USERS = ("", "0", "root")


def checks(target: Target, images: Path, info: ImageInfo | None) -> Iterator[Result]:
    """Check one image, as the engine has it."""
    if info is None:
        hint = f"stackctl build {target.name} --variant {target.variant_name}"
        yield Result("image", target.tag, SKIPPED, f"is not built here ({hint})")
        return
    steps: dict[str, Callable[[], str]] = {
        "labels": lambda: labels(target, images, info.labels),
        "size": lambda: size(target, info.size),
        "user": lambda: user(info.user),
        "packages": lambda: packages(target, images, inventory.take(target.tag)),
        "secrets": lambda: no_secrets(inventory.secrets(target.tag), settings_of(target.tag, info)),
    }
    for name, action in steps.items():
        yield attempt(name, target.tag, action)


def labels(target: Target, images: Path, found: Mapping[str, str]) -> str:
    """See that an image says what it would say if it were built now.

    Raises:
        JobFailed: It was built from another catalog, or from other locks.
    """
    for name, wanted in render.labels(target, images).items():
        if found.get(name) != wanted:
            has = f"is {_short(found[name])}" if name in found else "is not there"
            raise JobFailed(
                f"the label {name} {has}, and this checkout says {_short(wanted)}",
                hint=f"run `stackctl build {target.name} --variant {target.variant_name}`",
            )
    return ""


def size(target: Target, found: int) -> str:
    """See that an image keeps to its budget.

    Raises:
        JobFailed: It is larger.
    """
    said = f"{found / 1e9:.2f} GB of {target.variant.budget_gb:.2f} GB"
    if found > target.variant.budget_gb * 1e9:
        raise JobFailed(
            f"{said}: larger than its budget",
            where=f"images/catalog.toml: images.{target.name}.variants.{target.variant_name}.budget_gb",
            hint=f"`docker history {target.tag}` shows what is large",
        )
    return said


def user(found: str) -> str:
    """See that containers do not run as root.

    Raises:
        JobFailed: They do.
    """
    if found.partition(":")[0] in ROOT_USERS:
        raise JobFailed("its containers run as root", hint="the last USER of the Dockerfile must be another")
    return found


def packages(target: Target, images: Path, inside: Inventory) -> str:
    """See that the packages in an image are those of its locks, with the same versions.

    Raises:
        JobFailed: One is absent, has another version, or is not in a lock.
    """
    locked: dict[str, str] = {}
    optional = set()
    for pin in pins_of(target, images):
        locked[pin.name] = pin.version
        optional |= {pin.name} if pin.marker else set()
    installed = {package.name: package.version for package in inside.python}
    for name in sorted({*locked, *installed}):
        wanted, found = locked.get(name), installed.get(name)
        if wanted != found and not (found is None and name in optional):
            raise JobFailed(
                f"{name} is {found or 'absent'} in the image and {wanted or 'absent'} in its locks",
                hint=f"run `stackctl build {target.name} --variant {target.variant_name}`",
            )
    return f"{len(installed)} as locked"


def settings_of(tag: str, info: ImageInfo) -> dict[str, list[str]]:
    """Place -> texts of an image that anyone who has it can read, beside its files."""
    return {
        "the history": docker.history(tag),
        "the environment": list(info.env),
        "the labels": list(info.labels.values()),
    }


def no_secrets(files: Sequence[Finding], texts: Mapping[str, list[str]]) -> str:
    """See that neither files nor settings hold what looks like a secret; see `stackctl.images.secrets`.

    Raises:
        JobFailed: One does; names the place and the kind, and does not repeat it.
    """
    found = [f"{finding.path}: {finding.what}" for finding in files] + secrets.search(texts)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise JobFailed(
            f"holds what looks like a secret: {found[0]}{more}",
            hint="hand it to the build as a secret mount; it stays in no layer then",
        )
    return ""


def _short(value: str) -> str:
    return value if len(value) < 40 else value[:12]
