"""Catalog + templates + locks -> Dockerfiles, as text. Pure: nothing is written here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jinja2

from stackctl import __version__
from stackctl.errors import InvalidInput
from stackctl.images import lockfile
from stackctl.images.catalog import Target


def dockerfiles(targets: Sequence[Target], images: Path) -> dict[str, str]:
    """File name below images/dockerfiles -> its text, for each target.

    Raises:
        InvalidInput: A template is absent or names a value that does not exist, or a lock is absent.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(images / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is a Dockerfile, not HTML
    )
    return {target.dockerfile: _dockerfile(target, images, environment) for target in targets}


def labels(target: Target, images: Path) -> dict[str, str]:
    """The labels that follow from catalog and locks; `build` adds those of the moment (revision, time)."""
    texts = [read_lock(images / "locks" / name, target) for name in target.image_locks]
    return {
        "org.opencontainers.image.version": __version__,
        "io.stackctl.variant": target.variant_name,
        "io.stackctl.lock": lockfile.digest(*texts),
        **{f"io.stackctl.{name}": version for name, version in framework_versions(target, images).items()},
    }


def facts(target: Target, images: Path) -> str:
    """What an image says of itself in /opt/stack/image.json, for the suite and for anyone who looks inside.

    The locks that it names are beside it in /opt/stack/locks. `budget` is in bytes.
    """
    said = {
        "schema": 1,
        "image": target.name,
        "variant": target.variant_name,
        "framework": target.image.framework,
        "horovod": target.horovod is not None,
        "mpi": target.image.mpi,
        "versions": framework_versions(target, images),
        "cuda": target.variant.cuda,
        "minimum_driver": target.variant.minimum_driver,
        "gpu_architectures": list(target.variant.gpu_architectures),
        "python": target.base.python,
        "base": target.base.image,
        "lock": labels(target, images)["io.stackctl.lock"],
        "locks": list(target.installed_locks),
        "budget": round(target.variant.budget_gb * 1e9),
    }
    return json.dumps(said, indent=2) + "\n"


def framework_versions(target: Target, images: Path) -> dict[str, str]:
    """The frameworks in an image and their versions, as locked: `torch`, and `horovod` where it is compiled in."""
    pins = lockfile.parse(read_lock(images / "locks" / target.framework_lock, target))
    versions = {target.image.framework: next(pin.version for pin in pins if pin.name == target.framework_package)}
    if target.horovod:
        versions["horovod"] = target.horovod.version
    return versions


def read_lock(path: Path, target: Target) -> str:
    """The text of a lock.

    Raises:
        InvalidInput: There is none yet.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(
            f"{target.name} ({target.variant_name}) has no lock",
            where=str(path),
            hint=f"make it with `stackctl lock {target.name}`",
        ) from None


def _dockerfile(target: Target, images: Path, environment: jinja2.Environment) -> str:
    where = str(images / "templates" / target.image.template)
    try:
        return environment.get_template(target.image.template).render(target=target, labels=labels(target, images))
    except jinja2.TemplateNotFound as error:
        raise InvalidInput(f"there is no template {error.name!r}", where=where) from None
    except jinja2.TemplateSyntaxError as error:
        raise InvalidInput(str(error.message), where=f"{where}:{error.lineno}") from None
    except jinja2.UndefinedError as error:
        raise InvalidInput(str(error.message), where=where) from None
