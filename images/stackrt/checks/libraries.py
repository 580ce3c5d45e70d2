"""Do the image's shared libraries find each other, each once?"""

import os
import re
import subprocess
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.files import walk
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.words import NO_IMAGE, REBUILD, some
from stackrt.launch import cpus

FOLDERS = ("opt", "usr/lib", "usr/local")
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
SINGLE = ("libcublas", "libcudart", "libcudnn", "libnccl")
SITE = "site-packages"
OPTIONAL = re.compile(
    r"lib(cuda|nvidia-[a-z]+|nvcuvid|nvoptix)\.so"
    r"|lib(ibverbs|mlx5|fabric|pmix|ucp|ucs|uct|rdmacm|mpi|oshmem|cufile|gdrapi|efa)\b.*\.so"
)
"""Libraries of the driver, which its container toolkit brings when the container starts, and of a network's own
software, loaded only where the host has it."""


@check(
    "no-duplicate-libs",
    tags=("cuda", "image"),
    timeout=120.0,
    proves="no process can load two versions of one CUDA library",
    criterion="cublas, cudart, cudnn and nccl: one file each",
    parallel=True,
)
def no_duplicate_libs(context: Context) -> Result:
    """Look for each library's files; links to one and the same file count once."""
    if context.image is None:
        return skipped(NO_IMAGE)
    files: dict[str, set[Path]] = defaultdict(set)
    for path in _libraries(context.root):
        stem = path.name.partition(".so")[0]
        if stem in SINGLE:
            files[stem].add(path.resolve())
    double = [f"{stem}: {some(str(path) for path in paths)}" for stem, paths in sorted(files.items()) if len(paths) > 1]
    if double:
        return failed(
            "; ".join(double), expected="one file each", todo="see which package brings the second one; " + REBUILD
        )
    return passed(f"one file each: {', '.join(sorted(files))}" if files else "no CUDA libraries")


@check(
    "ldd-clean",
    tags=("image",),
    timeout=120.0,
    proves="no import fails late, on a machine far away, for want of a library",
    criterion="every library finds those that it needs, but the driver's",
    parallel=True,
)
def ldd_clean(context: Context) -> Result:
    """Ask the dynamic loader about each shared library, as ldd does."""
    if context.image is None:
        return skipped(NO_IMAGE)
    loader = next((path for path in LOADERS if Path(path).exists()), None)
    if loader is None:
        return skipped("the C library's dynamic loader is not where glibc has it")
    every = _libraries(context.root)
    files = [path for path in every if not path.is_symlink() and _is_elf(path)]
    brought = {path.name for path in every if SITE in path.parts}

    def ask(path: Path) -> list[str]:
        # A package loads what it needs from its own wheels by hand, before the library that asks for it.
        own = brought if SITE in path.parts else set()
        return [name for name in absent(loader, path) if name not in own and not OPTIONAL.match(name)]

    with ThreadPoolExecutor(cpus.usable().at_once) as pool:
        found = dict(zip(files, pool.map(ask, files), strict=True))
    wrong = [f"{path} needs {some(names)}" for path, names in found.items() if names]
    if wrong:
        return failed(
            some(wrong, 3),
            expected="every library found, but those of the driver and of a network's own software",
            todo="add the package that brings it to apt or packages in images/catalog.toml; " + REBUILD,
            libraries=len(files),
        )
    return passed(f"{len(files)} libraries find all that they need", libraries=len(files))


def absent(loader: str, path: Path) -> list[str]:
    """The names of libraries that a library needs and that the loader does not find."""
    trace = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    done = subprocess.run([loader, path], env=trace, capture_output=True, text=True, check=False)
    return re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)


def _libraries(root: Path) -> list[Path]:
    """Shared libraries, and links to them."""
    folders = [root / name for name in FOLDERS if (root / name).is_dir()]
    return [Path(path) for folder in folders for path, _ in walk(folder) if ".so" in path.rpartition("/")[2]]


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
