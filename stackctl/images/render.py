"""Catalog + templates + locks -> Dockerfiles, as text. Pure: nothing is written here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jinja2

from stackctl import __version__
from stackctl.errors import InvalidInput
from stackctl.images import lock_list, lockfile
from stackctl.images.catalog import Target
from stackctl.images.lock_list import locks_of, pins_of
from stackrt.contract import FACTS_SCHEMA, LABEL, LOCK_LABEL
from stackrt.frameworks import FRAMEWORKS


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
    # What the image for development has on top is not in this one.
    files = [lock.file for lock in locks_of(target) if lock.kind != "devel"]
    texts = [lock_list.read(images / "locks" / file, target) for file in files]
    return {
        "org.opencontainers.image.version": __version__,
        f"{LABEL}variant": target.variant_name,
        LOCK_LABEL: lockfile.digest(*texts),
        **{f"{LABEL}{name}": version for name, version in framework_versions(target, images).items()},
    }


def facts(target: Target, images: Path) -> str:
    """What an image says of itself in /opt/stack/image.json, for the suite and for anyone who looks inside.

    The locks that it names are beside it in /opt/stack/locks. `budget` is in bytes.
    """
    said = {
        "schema": FACTS_SCHEMA,
        "image": target.name,
        "variant": target.variant_name,
        "framework": target.image.framework,
        "horovod": target.horovod is not None,
        "mpi": target.image.mpi,
        "compiler": bool(target.image.compiler),
        "versions": framework_versions(target, images),
        "cuda": target.variant.cuda,
        "minimum_driver": target.variant.minimum_driver,
        "gpu_architectures": list(target.variant.gpu_architectures),
        "python": target.base.python,
        "base": target.base.image,
        "lock": labels(target, images)[LOCK_LABEL],
        "locks": [lock.file for lock in locks_of(target) if lock.installed],
        "budget": round(target.variant.budget_gb * 1e9),
    }
    return json.dumps(said, indent=2) + "\n"


def framework_versions(target: Target, images: Path) -> dict[str, str]:
    """The frameworks in an image and their versions, as locked: `torch`, and `horovod` where it is compiled in."""
    pins = {pin.name: pin.version for pin in pins_of(target, images, "framework")}
    if target.framework_package not in pins:
        raise InvalidInput(
            f"does not hold {target.framework_package}",
            where=str(images / "locks" / lock_list.lock_of(target, "framework").file),
            hint=f"run `stackctl lock {target.name}`",
        )
    versions = {target.image.framework: pins[target.framework_package]}
    if target.horovod:
        versions["horovod"] = target.horovod.version
    return versions


def _dockerfile(target: Target, images: Path, environment: jinja2.Environment) -> str:
    where = str(images / "templates" / target.template)
    try:
        return environment.get_template(target.template).render(
            target=target,
            framework=FRAMEWORKS[target.image.framework],
            locks={lock.kind: lock for lock in locks_of(target)},
            labels=labels(target, images),
        )
    except jinja2.TemplateNotFound as error:
        raise InvalidInput(f"there is no template {error.name!r}", where=where) from None
    except jinja2.TemplateSyntaxError as error:
        raise InvalidInput(str(error.message), where=f"{where}:{error.lineno}") from None
    except jinja2.UndefinedError as error:
        raise InvalidInput(str(error.message), where=where) from None
