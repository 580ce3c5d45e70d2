"""Are the packages in the image those of its lock, and do they fit each other?"""

import re
from importlib import metadata

from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.words import NO_IMAGE, REBUILD, some
from stackrt.frameworks import FRAMEWORKS

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
STANDS_FOR = {name: row.cpu_package for name, row in FRAMEWORKS.items() if row.cpu_package}
"""A package that others require -> the one that brings the same modules under another name."""


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(context: Context) -> dict[str, str]:
    """Name -> version of every distribution in the image's environment."""
    found = metadata.distributions(path=[str(context.site)])
    return {normal(one.metadata["Name"]): one.version for one in found if one.metadata["Name"]}


@check(
    "lock-match",
    tags=("image",),
    proves="the packages are those that were locked, no more, no less, no other version",
    criterion="installed == lock, both ways",
    parallel=True,
)
def lock_match(context: Context) -> Result:
    """Compare the environment with the locks that the image was built from, and those of an image FROM it."""
    if context.image is None:
        return skipped(NO_IMAGE)
    locked: dict[str, str] = {}
    folder = context.stack / "locks"
    theirs = [folder / name for name in context.image.locks]
    files = [*theirs, *(file for file in sorted(folder.glob("*.txt")) if file not in theirs)]
    for file in files:
        if not file.is_file():
            return failed(f"the lock {file} is absent", expected="the image carries its locks", todo=REBUILD)
        pins = PIN.findall(file.read_text(encoding="utf-8"))
        locked.update({normal(package): version for package, version in pins})
    here = installed(context)
    differ = [
        f"{name} {here[name]} (lock: {locked[name]})" for name in locked if here.get(name, "") not in ("", locked[name])
    ]
    absent = [f"{name} is absent" for name in locked if name not in here]
    extra = [f"{name} {here[name]} is not in the lock" for name in here if name not in locked]
    if differ or absent or extra:
        return failed(
            some([*differ, *absent, *extra]),
            expected=f"exactly the {len(locked)} packages of {', '.join(file.name for file in files)}",
            todo=f"{REBUILD}; in an image FROM it, pin what you add in a file beside them: {folder}/mine.txt",
            packages=len(here),
        )
    return passed(f"all {len(here)} packages are as locked", packages=len(here))


@check(
    "pip-check",
    tags=("image",),
    proves="every package finds what it requires",
    criterion="no requirement unmet",
    parallel=True,
)
def pip_check(context: Context) -> Result:
    """Compare every package's requirements with what is installed, as `pip check` does."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return skipped("the package `packaging`, which reads requirements, is not in this environment")
    here = installed(context)
    unmet = []
    for one in metadata.distributions(path=[str(context.site)]):
        for text in one.requires or ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            name = normal(wanted.name)
            version = here.get(name) or here.get(STANDS_FOR.get(name, ""))
            if version is None:
                unmet.append(f"{one.name} requires {wanted.name}, which is absent")
            elif not wanted.specifier.contains(version, prereleases=True):
                unmet.append(f"{one.name} requires {wanted.name}{wanted.specifier}, and {version} is here")
    if unmet:
        return failed(
            some(unmet),
            expected="every requirement is met",
            todo="choose versions that fit in images/catalog.toml, then stackctl lock and stackctl build",
        )
    return passed(f"the requirements of {len(here)} packages are met")


@check(
    "one-cuda-major",
    tags=("cuda", "image"),
    proves="no library of one CUDA is loaded into a process of another",
    criterion="at most one CUDA major among the packages",
    parallel=True,
)
def one_cuda_major(context: Context) -> Result:
    """Look for packages of two CUDA majors: wheels name theirs (-cu12), or carry it as their version."""
    majors: dict[str, list[str]] = {}
    for name, version in installed(context).items():
        suffix = re.search(r"-cu(\d\d)$", name)
        if suffix:
            majors.setdefault(suffix[1], []).append(name)
        elif name in ("nvidia-cuda-runtime", "nvidia-cublas", "cuda-toolkit"):
            majors.setdefault(version.split(".")[0], []).append(name)
    if len(majors) > 1:
        words = [f"CUDA {major}: {some(names)}" for major, names in sorted(majors.items())]
        return failed(
            "; ".join(words),
            expected="the packages of one CUDA major",
            todo="remove one of them from the catalog; " + REBUILD,
        )
    return passed(f"CUDA {next(iter(majors))} only" if majors else "no CUDA packages")


@check(
    "cpu-is-cpu",
    tags=("cuda", "image"),
    proves="a CPU image carries no gigabytes of GPU libraries",
    criterion="no NVIDIA package in a CPU image",
    parallel=True,
)
def cpu_is_cpu(context: Context) -> Result:
    """Look for NVIDIA's packages in an image of the CPU variant."""
    if context.image is None:
        return skipped(NO_IMAGE)
    if context.image.variant != "cpu":
        return skipped(f"this is the image's {context.image.variant} variant")
    here = installed(context)
    found = [name for name in here if name.startswith(("nvidia-", "cuda-")) or name in ("triton", *STANDS_FOR)]
    found += [f"{name} {version}" for name, version in here.items() if re.search(r"\+cu\d", version)]
    if found:
        return failed(some(found), expected="no package for GPUs", todo="see what requires it; " + REBUILD)
    return passed("no package for GPUs")
