"""Resolve an image's packages into hashed locks, with uv."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from stackctl.errors import InvalidInput, JobFailed, StackError
from stackctl.images import catalog, conflict, cuda, lock_list, lockfile, resolver, sums
from stackctl.images.catalog import Target
from stackctl.images.lock_list import TOOLS, Kind, Lock, lock_of, locks_of
from stackctl.images.lockfile import Pin, place
from stackctl.images.resolver import as_lines
from stackctl.images.schema import Tools
from stackctl.images.settings import Settings


def fingerprint(target: Target, lock: Lock) -> str:
    """Identity of a resolver's question: the requirements, the Python and the platform.

    Each lock has its own, so that a change of one package leaves the layers of the others' locks in the cache.
    """
    # What is on top of an image keeps to the image's versions.
    below = target.requirements if lock.kind == "devel" else ()
    question = f"{as_lines((*below, *lock.requirements))}{target.base.python} {target.base.wheel_platform}"
    question += "".join(f" without {name}" for name in target.variant.leave_out)
    if lock.kind in ("framework", "packages"):
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
    texts = {}
    for lock in locks_of(target):
        texts[lock.file] = lock_list.read(folder / lock.file, target)
        if f"# requirements: {fingerprint(target, lock)}" not in texts[lock.file]:
            raise InvalidInput("does not answer to the catalog as it stands", where=str(folder / lock.file), hint=again)
    for edit in sums.edits(lock_list.read(folder / target.sums, target), texts):
        raise InvalidInput(
            edit.message,
            where=f"{folder / edit.file}:{edit.line}",
            hint=f"versions belong into images/catalog.toml; {again} to have the lock written again",
        )
    framework, packages = (lock_of(target, kind).file for kind in ("framework", "packages"))
    for file, others in ((framework, 1), (packages, 0)):
        if wrong := lockfile.split(lockfile.parse(texts[file]), target.image.framework_layer)[others]:
            said = f"holds {wrong[0].name}, against framework_layer of the catalog"
            raise InvalidInput(said, where=place(folder / file, wrong[0].name), hint=again)
    _check_cuda(target, [pin for text in texts.values() for pin in lockfile.parse(text)])


def lacking(target: Target, images: Path) -> list[str]:
    """Packages that the catalog wants if they are offered, and that were not when the target was locked."""
    held = _versions(images, target, lock_of(target, "framework"))
    wanted = target.variant.framework_packages_if_offered
    return [requirement for requirement in wanted if conflict.name_of(requirement) not in held]


def check_variants(image: Sequence[Target], images: Path) -> None:
    """See that an image's variants hold the same versions of all that is outside the framework's layer.

    Raises:
        InvalidInput: They do not; names the packages.
    """
    first, *others = image
    pins = {target.key: _versions(images, target, lock_of(target, "packages")) for target in image}
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
    path, noted = images / "locks" / TOOLS, images / "locks" / "tools.sums"
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
    ask = partial(resolver.ask, target, settings, images)
    more = target.variant.framework_packages_if_offered
    try:
        pins, not_offered = ask((*target.requirements, *more), kept=kept), ""
    except JobFailed as error:
        if not more:
            raise
        pins, not_offered = ask(target.requirements, kept=kept), f"without {', '.join(more)}: {error.message}"
    _check_cuda(target, pins)
    locks = locks_of(target)
    held = {lock.kind: _written(images, target, lock) for lock in locks} if kept else {}
    parts = _parts(target, locks, pins, ask, held)
    # What compiles for a GPU, or makes wheels, has no say in the versions of an image.
    told = [lock for lock in locks if lock.kind not in ("toolkit", "wheels")]
    before = _versions(images, target, *told)
    after = {pin.name: pin.version for lock in told for pin in parts[lock.kind]}
    made = f"{target.name} ({target.variant_name}). Made by `stackctl lock {target.name}`; do not edit."
    # Images with the same framework share its layer, if its lock is the same to the last byte.
    framework_made = f"{', '.join(target.variant.framework_packages)}. Made by `stackctl lock`; do not edit."
    files = {
        lock.file: lockfile.write(
            parts[lock.kind],
            [framework_made if lock.kind == "framework" else made, f"requirements: {fingerprint(target, lock)}"],
        )
        for lock in locks
    }
    shared = {pin.name: pin.text for pin in parts["packages"]}
    noted = sums.text(files, _sizes(target, target.sums, files, settings, images))
    return Resolved(files | {target.sums: noted}, tuple(changes(before, after)), shared, not_offered)


def _parts(
    target: Target,
    locks: Sequence[Lock],
    pins: Sequence[Pin],
    ask: Callable[..., list[Pin]],
    held: Mapping[Kind, dict[str, str]],
) -> dict[Kind, list[Pin]]:
    """What each lock is to hold: the image's packages by layers, and what other stages of its build have beside them.

    Args:
        target: The image and variant.
        locks: Its locks.
        pins: All packages of the image.
        ask: Puts a question to the resolver.
        held: What the locks hold so far, to stay with.
    """
    parts: dict[Kind, list[Pin]] = {}
    parts["framework"], others = lockfile.split(pins, target.image.framework_layer)
    parts["horovod"], others = lockfile.split(others, ["horovod"])
    parts["sources"], parts["packages"] = lockfile.split(others, target.image.sources)
    has = {pin.name: f"{pin.name}=={pin.version}" for pin in pins}
    for lock in locks:
        if lock.kind == "builder" and target.horovod:
            # What Horovod is compiled against is what it will run with; only the tools have versions of their own.
            tools = [requirement.split("==")[0] for requirement in target.horovod.packages]
            bounds = [version for name, version in has.items() if name not in tools]
            needed = ask(lock.requirements, kept=held.get(lock.kind, {}), constraints=bounds)
            parts[lock.kind] = lockfile.split(needed, [*target.image.framework_layer, "horovod"])[1]
        elif lock.kind in ("toolkit", "wheels"):
            parts[lock.kind] = ask(lock.requirements)
        elif lock.kind == "devel":
            needed = ask(lock.requirements, kept=held.get(lock.kind, {}), constraints=[*has.values()])
            parts[lock.kind] = [pin for pin in needed if pin.name not in has]
    return parts


def present(target: Target, images: Path, siblings: Iterable[Target]) -> dict[str, str]:
    """Package -> its lines as the resolver last wrote them; what the target lacks comes from its siblings.

    Edits by hand are not in it.
    """
    found: dict[str, str] = {}
    for sibling in siblings:
        found |= _written(images, sibling, lock_of(sibling, "packages"))
    return found | _written(images, target, *(lock for lock in locks_of(target) if lock.installed))


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
        pins = resolver.ask(target, settings, images, [wanted.split("==")[0] for wanted in target.requirements])
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
    pins = lockfile.parse(resolver.uv([f"uv=={rows.tools.uv}"], target.base, [], settings))
    files = {TOOLS: lockfile.write(pins, ["Tools of a build. Made by `stackctl lock`; do not edit."])}
    return files | {"tools.sums": sums.text(files, _sizes(target, "tools.sums", files, settings, images))}


def _sizes(target: Target, noted: str, locks: Mapping[str, str], settings: Settings, images: Path) -> dict[str, int]:
    """The sizes of the packages' files; an index is asked only for locks that hold a package of unknown size.

    And for those with a package that another lock had: whether a source archive will do depends on the lock.
    """
    path = images / "locks" / noted
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = sums.sizes(before)
    fresh = {
        name: text
        for name, text in locks.items()
        if any(pin.digest not in known or pin.name not in sums.versions(before, name) for pin in lockfile.parse(text))
    }
    if not fresh:
        return known
    # With it comes all that fetches files, which a build that only checks locks does not need.
    from stackctl.images import sources

    return known | sources.sizes(fresh, target, settings)


def _check_cuda(target: Target, pins: Iterable[Pin]) -> None:
    wrong = cuda.clash(cuda.majors(pins), target.variant.cuda)
    if wrong:
        raise InvalidInput(
            wrong,
            where=f"images/catalog.toml: images.{target.name}.variants.{target.variant_name}",
            hint="choose framework versions that are built for one CUDA, or set `cuda` to theirs",
        )


def _written(images: Path, target: Target, *of: Lock) -> dict[str, str]:
    folder = images / "locks"
    if not (folder / target.sums).exists():
        return {}
    paths = [folder / lock.file for lock in of if (folder / lock.file).exists()]
    locks = {path.name: path.read_text(encoding="utf-8") for path in paths}
    return sums.written((folder / target.sums).read_text(encoding="utf-8"), locks)


def _versions(images: Path, target: Target, *of: Lock) -> dict[str, str]:
    path = images / "locks" / target.sums
    return sums.versions(path.read_text(encoding="utf-8"), *(lock.file for lock in of)) if path.exists() else {}
