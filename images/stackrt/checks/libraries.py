"""Do the image's shared libraries find each other, each once?"""

import ctypes
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
from stackrt.checks.words import NO_CUDA, NO_IMAGE, REBUILD, some
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
TORCH_CUDA = "libtorch_cuda.so"
EXTENSIONS = {"torchao": re.compile(r"lib(c10_cuda|torch_cuda|cudart)\.so")}
"""What a package's extensions for GPUs need of a CUDA build of torch; beside a CPU build it does without them."""


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
        package = next(iter(path.parts[path.parts.index(SITE) + 1 :]), "") if own else ""
        spared = None if TORCH_CUDA in brought else EXTENSIONS.get(package)
        names = [name for name in absent(loader, path) if name not in own and not OPTIONAL.match(name)]
        return [name for name in names if not (spared and spared.match(name))]

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


VERBS = {
    "libibverbs.so.1": ("ibv_get_device_list", "ibv_reg_mr_iova2", "ibv_reg_dmabuf_mr", "ibv_query_ece"),
    "libmlx5.so.1": ("mlx5dv_is_supported",),
    "librdmacm.so.1": ("rdma_create_event_channel",),
}
"""Library -> what is called in it: the first two by NCCL (src/misc/ibvsymbols.cc, mlx5dvsymbols.cc), the last by
plugins for other networks (libfabric, UCX)."""
DRIVERS = ("mlx5", "efa")
"""Of the user-space drivers that libibverbs loads by itself: NVIDIA's adapters, and those of AWS."""


@check(
    "rdma-libraries",
    tags=("image", "nccl"),
    proves="NCCL can open InfiniBand, RoCE and EFA devices where a node has them, and need not take TCP",
    criterion="libibverbs, libmlx5 and librdmacm open with all that NCCL calls, and so do the drivers mlx5 and efa",
    parallel=True,
)
def rdma_libraries(context: Context) -> Result:
    """Open the libraries as NCCL does. That needs no device; what NCCL chose on a node the check transport tells."""
    if context.image is None or not context.image.cuda:
        return skipped(NO_CUDA)
    problems = [problem for name, symbols in VERBS.items() for problem in unusable(name, symbols)]
    drivers = {path.name.partition("-")[0].removeprefix("lib"): path for path in _verbs_drivers(context.root)}
    problems += [f"libibverbs has no driver {name}" for name in DRIVERS if name not in drivers]
    problems += [problem for path in drivers.values() for problem in unusable(str(path), ())]
    if problems:
        return failed(
            some(problems, 4),
            expected="libibverbs1, ibverbs-providers and librdmacm1 are installed and whole",
            todo="add them to the table fabric of images/catalog.toml, or to the image that is built FROM this one; "
            + REBUILD,
        )
    return passed(f"{len(VERBS)} libraries and {len(drivers)} drivers open, {', '.join(DRIVERS)} among them")


def unusable(name: str, symbols: tuple[str, ...]) -> list[str]:
    """What is wrong with a library: it does not open, or lacks a function."""
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        return [str(error)]
    return [f"{name} has no {symbol}" for symbol in symbols if not hasattr(library, symbol)]


def _verbs_drivers(root: Path) -> list[Path]:
    return sorted((root / "usr/lib").glob("*/libibverbs/lib*-rdmav*.so"))


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
