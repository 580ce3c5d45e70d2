"""Put a question about packages to uv, and tell its answer."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from stackctl.engines import process
from stackctl.errors import CommandFailed, JobFailed, MissingHere
from stackctl.images import catalog, conflict, lockfile
from stackctl.images.catalog import Target
from stackctl.images.schema import Base
from stackctl.images.settings import Settings, uv_environment

_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")


def ask(
    target: Target,
    settings: Settings,
    images: Path,
    requirements: Sequence[str],
    *,
    kept: Mapping[str, str] = MappingProxyType({}),
    constraints: Sequence[str] = (),
) -> list[lockfile.Pin]:
    """Put one question to the resolver, and tell a conflict by the catalog's own lines.

    Args:
        target: The image and variant: their Python, platform and index.
        settings: Where packages come from.
        images: The folder that holds catalog.toml.
        requirements: `name==version`, or a name alone for any version.
        kept: Package -> its lines in a lock, to stay with where they fit.
        constraints: Versions of packages that need not be in the answer.

    Raises:
        JobFailed: The requirements conflict; says who wants what, and where the catalog says so.
        MissingHere: The package index refuses or does not answer, or uv is not installed.
    """
    options: list[str] = []
    # A wheelhouse stands in for the framework's own index only: elsewhere, a wheel with a local version
    # (2.13.0+cpu) would also satisfy the plain one (2.13.0) that a CUDA variant asks for.
    if target.variant.index and settings.wheelhouse:
        options = ["--find-links", str(settings.wheelhouse)]
    elif target.variant.index and settings.torch_index != "":
        options = ["--index", settings.torch_index or target.variant.index, "--index-strategy", "unsafe-best-match"]
    overrides = [f"{name} ; sys_platform == 'never'" for name in target.variant.leave_out]
    where = f"{target.name} ({target.variant_name})"
    try:
        answer = uv(requirements, target.base, options, settings, kept, overrides, constraints)
    except CommandFailed as error:
        if refusal := _REFUSED.search(error.output):
            raise MissingHere(
                f"a package index refuses: {refusal[0]}",
                where=where,
                hint="its user and password belong into its address (PIP_INDEX_URL=https://user:password@…), or into "
                "~/.netrc; see docs/settings.md",
            ) from error
        if "No solution found" not in error.output:
            raise MissingHere(
                f"the package index does not answer: {error.output.strip().splitlines()[-1].strip()}",
                where=where,
                hint="for a mirror, a proxy or a private CA see docs/settings.md; --debug shows all of uv's words",
            ) from error
        told = conflict.explain(error.output, [*requirements, *constraints], target.base.python)
        if told is None:
            raise JobFailed(f"no set of versions fits the catalog\n{error.output.strip()}", where=where) from error
        rows = {row: catalog.line_of(images / "catalog.toml", target, row) for row in told.requirements}
        lines = [
            f"images/catalog.toml:{line}: {row}" for row, line in sorted(rows.items(), key=lambda row: row[1]) if line
        ]
        what = "change it" if len(lines) == 1 else "change one of them"
        raise JobFailed(
            told.sentence,
            where=where,
            hint="\n  ".join([*lines, f"{what}; `stackctl --debug lock {target.name}` shows the resolver's own words"]),
        ) from error
    return lockfile.parse(answer)


def uv(
    requirements: Sequence[str],
    base: Base,
    options: Sequence[str],
    settings: Settings,
    kept: Mapping[str, str] = MappingProxyType({}),
    overrides: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> str:
    """The hashed requirements that uv finds for a base image's Python and platform.

    Raises:
        CommandFailed: It finds none; holds its words.
    """
    argv = ["uv", "pip", "compile", "-", "--generate-hashes", "--quiet", "--no-header", "--no-annotate"]
    argv += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", base.python]
    argv += ["--python-platform", base.wheel_platform, *options]
    with tempfile.TemporaryDirectory() as folder:
        for option, lines in (("overrides", overrides), ("constraints", constraints)):
            if lines:
                path = Path(folder, option)
                path.write_text(as_lines(lines), encoding="utf-8")
                argv += [f"--{option}", str(path)]
        # uv stays with what is in the file that it is to write.
        output = Path(folder, "kept")
        output.write_text("".join(f"{lines}\n" for lines in kept.values()), encoding="utf-8")
        argv += ["--output-file", str(output)]
        process.run(
            argv,
            env=uv_environment(settings, os.environ),
            text=as_lines(requirements),
            hint="install it with `pip install uv`",
        )
        return output.read_text(encoding="utf-8")


def as_lines(requirements: Iterable[str]) -> str:
    """Requirements as a file of them, in one order whatever theirs was."""
    return "\n".join(sorted(requirements)) + "\n"
