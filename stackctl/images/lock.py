"""Resolve an image's packages into hashed locks, with uv."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stackctl.engines import process
from stackctl.errors import CommandFailed, InvalidInput, JobFailed
from stackctl.images import lockfile
from stackctl.images.catalog import Base, Target, Tools
from stackctl.images.render import read_lock
from stackctl.images.settings import Settings


def requirements(target: Target) -> str:
    """What the catalog asks of the resolver, one requirement a line."""
    return _lines(*target.variant.framework_packages, *target.image.packages, *_horovod(target))


def fingerprint(target: Target, name: str) -> str:
    """Identity of a resolver's question: the requirements, the Python and the platform.

    Each lock has its own, so that a change of one package leaves the layers of the others' locks in the cache.

    Args:
        target: The image and variant.
        name: One of the target's locks.
    """
    if name == target.packages_lock:
        asked = requirements(target)
    elif name == target.framework_lock:
        asked = _lines(*target.variant.framework_packages)
    else:
        asked = _compiling(target)
    question = f"{asked}{target.base.python} {target.base.wheel_platform}"
    question += "".join(f" without {name}" for name in target.variant.leave_out)
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def check(target: Target, images: Path) -> None:
    """See that the locks were made from the catalog as it stands.

    Raises:
        InvalidInput: A lock is absent or older than the catalog.
    """
    for name in target.locks:
        path = images / "locks" / name
        if f"# requirements: {fingerprint(target, name)}" not in read_lock(path, target):
            raise InvalidInput(
                "does not answer to the catalog as it stands",
                where=str(path),
                hint=f"run `stackctl lock {target.name} --variant {target.variant_name}`",
            )


def check_tools(tools: Tools, images: Path) -> None:
    """See that the lock of a build's tools has the catalog's versions.

    Raises:
        InvalidInput: It has others, or is absent.
    """
    path = images / "locks" / "tools.txt"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if {pin.name: pin.version for pin in lockfile.parse(text)} != {"uv": tools.uv}:
        raise InvalidInput("does not answer to [tools] of the catalog", where=str(path), hint="run `stackctl lock`")


def resolve(target: Target, settings: Settings) -> dict[str, str]:
    """Ask uv for the exact versions and hashes of an image's packages.

    Returns:
        File name below images/locks -> text: the framework's layer, everything else, and Horovod's two if it is there.

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
    overrides = [f"{name} ; sys_platform == 'never'" for name in target.variant.leave_out]
    pins = _compile(requirements(target), target.base, options, where, overrides=overrides)
    framework, others = lockfile.split(pins, target.image.framework_layer)
    parts = [framework, others]
    if target.horovod:
        horovod, others = lockfile.split(others, ["horovod"])
        parts = [framework, others, horovod]
        # What Horovod is compiled against is what it will run with; only the tools have versions of their own.
        tools = [requirement.split("==")[0] for requirement in target.horovod.packages]
        bounds = [f"{pin.name}=={pin.version}" for pin in pins if pin.name not in tools]
        needed = _compile(_compiling(target), target.base, options, "horovod", overrides=overrides, constraints=bounds)
        parts.append(lockfile.split(needed, [*target.image.framework_layer, "horovod"])[1])
    made = f"{target.name} ({target.variant_name}). Made by `stackctl lock {target.name}`; do not edit."
    return {
        name: lockfile.write(part, [made, f"requirements: {fingerprint(target, name)}"])
        for name, part in zip(target.locks, parts, strict=True)
    }


def resolve_tools(base: Base, tools: Tools) -> dict[str, str]:
    """The lock of what a build uses and leaves behind: file name below images/locks -> text."""
    pins = _compile(f"uv=={tools.uv}\n", base, [], "tools.uv")
    return {"tools.txt": lockfile.write(pins, ["Tools of a build. Made by `stackctl lock`; do not edit."])}


def _lines(*requirements: str) -> str:
    return "\n".join(sorted(requirements)) + "\n"


def _horovod(target: Target) -> tuple[str, ...]:
    return (f"horovod=={target.horovod.version}",) if target.horovod else ()


def _compiling(target: Target) -> str:
    """What the stage that compiles Horovod asks of the resolver."""
    tools = target.horovod.packages if target.horovod else ()
    return _lines(*target.variant.framework_packages, *_horovod(target), *tools)


def _compile(
    question: str,
    base: Base,
    options: list[str],
    where: str,
    *,
    overrides: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> list[lockfile.Pin]:
    argv = ["uv", "pip", "compile", "-", "--generate-hashes", "--quiet", "--no-header", "--no-annotate"]
    argv += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", base.python]
    argv += ["--python-platform", base.wheel_platform, *options]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for option, lines in (("--overrides", overrides), ("--constraints", constraints)):
                if lines:
                    path = Path(folder, option.strip("-"))
                    path.write_text(_lines(*lines), encoding="utf-8")
                    argv += [option, str(path)]
            answer = process.run(argv, text=question, hint="install it with `pip install uv`")
    except CommandFailed as error:
        raise JobFailed(
            f"no set of versions fits the catalog's requirements\n{error.output.strip()}",
            where=where,
            hint="change the versions in images/catalog.toml so that they agree",
        ) from None
    return lockfile.parse(answer)
