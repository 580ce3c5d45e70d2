"""Resolve an image's packages into hashed locks, with uv."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from stackctl.engines import process
from stackctl.errors import CommandFailed, InvalidInput, JobFailed, MissingHere, StackError
from stackctl.images import catalog, conflict, cuda, lockfile, sums
from stackctl.images.catalog import Base, Target, Tools
from stackctl.images.render import read_lock
from stackctl.images.settings import Settings, uv_environment


def fingerprint(target: Target, name: str) -> str:
    """Identity of a resolver's question: the requirements, the Python and the platform.

    Each lock has its own, so that a change of one package leaves the layers of the others' locks in the cache.

    Args:
        target: The image and variant.
        name: One of the target's locks.
    """
    if name == target.packages_lock:
        asked = _lines(*target.requirements)
    elif name == target.framework_lock:
        asked = _lines(*target.variant.framework_packages)
    elif name == target.devel_lock:
        asked = _lines(*target.requirements, *_developing(target))
    elif target.toolkit and name == target.toolkit_lock:
        asked = _lines(*target.toolkit.packages)
    else:
        asked = _lines(*_compiling(target))
    question = f"{asked}{target.base.python} {target.base.wheel_platform}"
    question += "".join(f" without {name}" for name in target.variant.leave_out)
    if name in (target.packages_lock, target.framework_lock):
        question += "".join(f" if offered {name}" for name in target.variant.framework_packages_if_offered)
    return hashlib.sha256(question.encode()).hexdigest()[:16]


def check(target: Target, images: Path) -> None:
    """See that the locks were made from the catalog as it stands, and that nobody has edited them.

    Raises:
        InvalidInput: A lock is absent, older than the catalog, edited by hand, or brings another CUDA than the
            catalog says. Names the file and the line.
    """
    again = f"run `stackctl lock {target.name} --variant {target.variant_name}`"
    folder = images / "locks"
    texts = {name: read_lock(folder / name, target) for name in (*target.locks, target.sums)}
    for name in target.locks:
        if f"# requirements: {fingerprint(target, name)}" not in texts[name]:
            raise InvalidInput("does not answer to the catalog as it stands", where=str(folder / name), hint=again)
    sums_text = texts.pop(target.sums)
    for edit in sums.edits(sums_text, texts):
        raise InvalidInput(
            edit.message,
            where=f"{folder / edit.file}:{edit.line}",
            hint=f"versions belong into images/catalog.toml; {again} to have the lock written again",
        )
    _check_cuda(target, [pin for name in target.locks for pin in lockfile.parse(texts[name])])


def lacking(target: Target, images: Path) -> list[str]:
    """Packages that the catalog wants if they are offered, and that were not when the target was locked."""
    held = _versions(images, target, target.framework_lock)
    wanted = target.variant.framework_packages_if_offered
    return [requirement for requirement in wanted if conflict.name_of(requirement) not in held]


def check_variants(image: Sequence[Target], images: Path) -> None:
    """See that an image's variants hold the same versions of all that is outside the framework's layer.

    Raises:
        InvalidInput: They do not; names the packages.
    """
    first, *others = image
    pins = {target.key: _versions(images, target, target.packages_lock) for target in image}
    for other in others:
        one, two = pins[first.key], pins[other.key]
        differ = [f"{name} ({one[name]}, {two[name]})" for name in one if name in two and one[name] != two[name]]
        if differ:
            raise InvalidInput(
                f"{first.variant_name} and {other.variant_name} have different versions: {', '.join(differ)}",
                where=f"images.{first.name}",
                hint=f"run `stackctl lock {first.name}`; where that does not help, pin the package in the catalog",
            )


def check_tools(tools: Tools, images: Path) -> None:
    """See that the lock of a build's tools has the catalog's versions, and that nobody has edited it.

    Raises:
        InvalidInput: It has others, is edited, or is absent.
    """
    path, noted = images / "locks" / "tools.txt", images / "locks" / "tools.sums"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if {pin.name: pin.version for pin in lockfile.parse(text)} != {"uv": tools.uv} or not noted.exists():
        raise InvalidInput("does not answer to [tools] of the catalog", where=str(path), hint="run `stackctl lock`")
    for edit in sums.edits(noted.read_text(encoding="utf-8"), {path.name: text}):
        raise InvalidInput(
            edit.message, where=f"{path}:{edit.line}", hint="run `stackctl lock` to have it written again"
        )


class Resolved(msgspec.Struct, frozen=True):
    """The locks of a target as the resolver answered, and what is new in them.

    `files` is file name below images/locks -> text; `changes` are lines such as `numpy 2.4.5 -> 2.4.6`; `shared` is
    package -> its lines, of what the image's other variants hold as well; `not_offered` says which of the packages that
    are taken if they are offered were left out, and why.
    """

    files: dict[str, str]
    changes: tuple[str, ...]
    shared: dict[str, str]
    not_offered: str = ""


def resolve(target: Target, settings: Settings, images: Path, kept: Mapping[str, str]) -> Resolved:
    """Ask uv for the exact versions and hashes of an image's packages.

    Args:
        target: The image and variant.
        settings: Where packages come from.
        images: The folder that holds catalog.toml and locks.
        kept: Package -> its lines in a lock, to stay with where they fit; see `present`.

    Raises:
        JobFailed: The requirements conflict; says who wants what, and where the catalog says so.
        InvalidInput: The answer holds another CUDA than the catalog says.
    """
    ask = partial(_ask, target, settings, images)
    more = target.variant.framework_packages_if_offered
    try:
        pins, not_offered = ask((*target.requirements, *more), kept=kept), ""
    except JobFailed as error:
        if not more:
            raise
        pins, not_offered = ask(target.requirements, kept=kept), f"without {', '.join(more)}: {error.message}"
    _check_cuda(target, pins)
    framework, others = lockfile.split(pins, target.image.framework_layer)
    parts = [framework, others]
    if target.horovod:
        horovod, others = lockfile.split(others, ["horovod"])
        parts = [framework, others, horovod]
        # What Horovod is compiled against is what it will run with; only the tools have versions of their own.
        tools = [requirement.split("==")[0] for requirement in target.horovod.packages]
        bounds = [f"{pin.name}=={pin.version}" for pin in pins if pin.name not in tools]
        built_with = _written(images, target, target.builder_lock) if kept else {}
        needed = ask(_compiling(target), kept=built_with, constraints=bounds)
        parts.append(lockfile.split(needed, [*target.image.framework_layer, "horovod"])[1])
    if target.toolkit:
        parts.append(ask(target.toolkit.packages))
    has = {pin.name: pin.version for part in parts[: len(target.installed_locks)] for pin in part}
    developing = ask(
        _developing(target),
        kept=_written(images, target, target.devel_lock) if kept else {},
        constraints=[f"{name}=={version}" for name, version in has.items()],
    )
    parts.append([pin for pin in developing if pin.name not in has])
    before = _versions(images, target, *(name for name in target.locks if name != target.toolkit_lock))
    after = {
        pin.name: pin.version
        for name, part in zip(target.locks, parts, strict=True)
        if name != target.toolkit_lock
        for pin in part
    }
    made = f"{target.name} ({target.variant_name}). Made by `stackctl lock {target.name}`; do not edit."
    # Images with the same framework share its layer, if its lock is the same to the last byte.
    framework_made = f"{', '.join(target.variant.framework_packages)}. Made by `stackctl lock`; do not edit."
    files = {
        name: lockfile.write(
            part,
            [framework_made if name == target.framework_lock else made, f"requirements: {fingerprint(target, name)}"],
        )
        for name, part in zip(target.locks, parts, strict=True)
    }
    shared = {pin.name: pin.text for pin in parts[1]}
    noted = sums.text(files, _sizes(target, target.sums, files, settings, images))
    return Resolved(files | {target.sums: noted}, tuple(changes(before, after)), shared, not_offered)


def present(target: Target, images: Path, siblings: Iterable[Target]) -> dict[str, str]:
    """Package -> its lines as the resolver last wrote them; what the target lacks comes from its siblings.

    Edits by hand are not in it.
    """
    found: dict[str, str] = {}
    for sibling in siblings:
        found |= _written(images, sibling, sibling.packages_lock)
    return found | _written(images, target, *target.installed_locks)


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is new in a lock, a line a package."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            lines.append(
                f"{name} {old} -> {new}" if old and new else f"{name} {new} added" if new else f"{name} removed"
            )
    return lines


def newer(target: Target, settings: Settings, images: Path) -> list[str]:
    """Requirements of the catalog that have newer releases which fit together, a line each. They stay as they are."""
    try:
        pins = _ask(target, settings, images, [wanted.split("==")[0] for wanted in target.requirements])
    except StackError:
        return []  # without the catalog's bounds nothing may fit; that is no fault of the lock
    versions = {pin.name: pin.version for pin in pins}
    lines = []
    for wanted in target.requirements:
        name, _, version = wanted.partition("==")
        offered = versions.get(conflict.name_of(name), version)
        # A plain version in place of a local one (2.13.0+cpu) is another build, from another index.
        if offered != version and ("+" in offered) == ("+" in version):
            line = catalog.line_of(images / "catalog.toml", target, wanted)
            lines.append(f"{name} {offered} is out; images/catalog.toml:{line} asks for {version}")
    return lines


def resolve_tools(rows: catalog.Catalog, settings: Settings, images: Path) -> dict[str, str]:
    """The lock of what a build uses and leaves behind, and its sums: file name below images/locks -> text."""
    target = catalog.targets(rows)[0]  # uv's wheel is the same for every Python
    pins = lockfile.parse(_uv([f"uv=={rows.tools.uv}"], target.base, [], settings))
    files = {"tools.txt": lockfile.write(pins, ["Tools of a build. Made by `stackctl lock`; do not edit."])}
    return files | {"tools.sums": sums.text(files, _sizes(target, "tools.sums", files, settings, images))}


def _sizes(target: Target, noted: str, locks: Mapping[str, str], settings: Settings, images: Path) -> dict[str, int]:
    """The sizes of the packages' files; an index is asked only for locks that hold a package of unknown size."""
    path = images / "locks" / noted
    known = sums.sizes(path.read_text(encoding="utf-8")) if path.exists() else {}
    fresh = {name: text for name, text in locks.items() if any(pin.digest not in known for pin in lockfile.parse(text))}
    if not fresh:
        return known
    # With it comes all that fetches files, which a build that only checks locks does not need.
    from stackctl.images import sources

    return known | sources.sizes(fresh, target, settings)


def _check_cuda(target: Target, pins: Iterable[lockfile.Pin]) -> None:
    wrong = cuda.clash(cuda.majors(pins), target.variant.cuda)
    if wrong:
        raise InvalidInput(
            wrong,
            where=f"images/catalog.toml: images.{target.name}.variants.{target.variant_name}",
            hint="choose framework versions that are built for one CUDA, or set `cuda` to theirs",
        )


def _written(images: Path, target: Target, *files: str) -> dict[str, str]:
    folder = images / "locks"
    if not (folder / target.sums).exists():
        return {}
    locks = {name: (folder / name).read_text(encoding="utf-8") for name in files if (folder / name).exists()}
    return sums.written((folder / target.sums).read_text(encoding="utf-8"), locks)


def _versions(images: Path, target: Target, *files: str) -> dict[str, str]:
    path = images / "locks" / target.sums
    return sums.versions(path.read_text(encoding="utf-8"), *files) if path.exists() else {}


def _lines(*requirements: str) -> str:
    return "\n".join(sorted(requirements)) + "\n"


def _compiling(target: Target) -> tuple[str, ...]:
    """What the stage that compiles Horovod asks of the resolver."""
    if target.horovod is None:
        return ()
    return (*target.variant.framework_packages, f"horovod=={target.horovod.version}", *target.horovod.packages)


def _developing(target: Target) -> tuple[str, ...]:
    """What the image for development asks of the resolver."""
    return (*target.devel.packages, *target.variant.devel_packages)


def _ask(
    target: Target,
    settings: Settings,
    images: Path,
    requirements: Sequence[str],
    *,
    kept: Mapping[str, str] = MappingProxyType({}),
    constraints: Sequence[str] = (),
) -> list[lockfile.Pin]:
    """Put one question to the resolver, and tell a conflict by the catalog's own lines."""
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
        answer = _uv(requirements, target.base, options, settings, kept, overrides, constraints)
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


_REFUSED = re.compile(r"\b(401 Unauthorized|403 Forbidden)\b")


def _uv(
    requirements: Sequence[str],
    base: Base,
    options: Sequence[str],
    settings: Settings,
    kept: Mapping[str, str] = MappingProxyType({}),
    overrides: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> str:
    argv = ["uv", "pip", "compile", "-", "--generate-hashes", "--quiet", "--no-header", "--no-annotate"]
    argv += ["--no-emit-index-url", "--no-emit-find-links", "--python-version", base.python]
    argv += ["--python-platform", base.wheel_platform, *options]
    with tempfile.TemporaryDirectory() as folder:
        for option, lines in (("overrides", overrides), ("constraints", constraints)):
            if lines:
                path = Path(folder, option)
                path.write_text(_lines(*lines), encoding="utf-8")
                argv += [f"--{option}", str(path)]
        # uv stays with what is in the file that it is to write.
        output = Path(folder, "kept")
        output.write_text("".join(f"{lines}\n" for lines in kept.values()), encoding="utf-8")
        argv += ["--output-file", str(output)]
        process.run(
            argv,
            env=uv_environment(settings, os.environ),
            text=_lines(*requirements),
            hint="install it with `pip install uv`",
        )
        return output.read_text(encoding="utf-8")
