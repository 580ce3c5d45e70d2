"""The GPUs as the driver sees them: its version, their number, their health, and the libraries really loaded."""

import ctypes
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stackrt import nvml
from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.launch import gpus as launcher
from stackrt.launch.driver import choose, compat_version
from stackrt.nvml import Gpu
from stackrt.versions import numbers

SLOWED = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of nvmlClocksEventReasons that cost speed. Idle, a power cap and clocks set on purpose are no fault."""

READINGS, APART = 3, 0.1
"""A change of clocks may look like a slowdown for a moment; what all readings, seconds apart, show is one."""

CUDA_ERRORS = {
    100: "no GPU can be used", 802: "the fabric manager is not ready", 803: "driver and libcuda do not fit",
    804: "forward compatibility is not for this GPU",
}  # fmt: skip
"""CUresult of cuInit (cuda.h)."""


@check(
    "driver-floor",
    needs=("gpu",),
    tags=("cuda", "host"),
    timeout=20.0,
    proves="The host's driver can run this image's CUDA.",
    criterion="driver >= the image's minimum, or a forward-compatible libcuda that starts",
)
def driver_floor(context: Context) -> Result:
    """Compare the driver with the image's minimum."""
    if not context.image or not context.image.minimum_driver:
        return skipped("this image holds no CUDA")
    with nvml.opened() as driver:
        version = driver.driver()
    minimum, cuda = context.image.minimum_driver, context.image.cuda
    # The launcher gives its ranks a newer libcuda where the host's driver is too old, and there is one.
    compatible = choose({"minimum_driver": minimum, "cuda": cuda}, version, compat_version()).folder
    return judge_driver(version, minimum, cuda, libcuda_starts(cuda, Path(compatible)))


def libcuda_starts(cuda: str, folder: Path = Path()) -> str:
    """Why the libcuda that programs get cannot run CUDA `cuda`; empty if it can. `folder`: where it is, if known."""
    try:
        library = ctypes.CDLL(str(folder / "libcuda.so.1"))
    except OSError as error:
        return f"libcuda.so.1 cannot be opened: {error}"
    if code := library.cuInit(0):
        return f"cuInit fails with CUDA error {code}: {CUDA_ERRORS.get(code, 'see cuda.h')}"
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    offered, wanted = version.value // 1000, int(cuda.split(".", maxsplit=1)[0])
    return "" if offered >= wanted else f"libcuda offers CUDA {offered}, the image needs {wanted}"


def judge_driver(version: str, minimum: str, cuda: str, problem: str) -> Result:
    """Judge a driver.

    Args:
        version: The kernel driver's, `580.95.05`.
        minimum: The image's, `580`.
        cuda: The image's CUDA, `13.0`.
        problem: Why libcuda does not start; empty if it does.
    """
    old = numbers(version) < numbers(minimum)
    expected = f"driver {minimum} or newer, which CUDA {cuda} needs"
    if old and not problem:
        return passed(f"driver {version}, with a forward-compatible libcuda that starts", driver=version)
    if old:
        todo = f"update the host's driver to {minimum} or newer, or take an image with an older CUDA"
        return failed(f"driver {version}; {problem}", expected=expected, todo=todo, driver=version)
    if problem:
        return failed(
            f"driver {version}, but {problem}", driver=version, expected="a libcuda that starts",
            todo="remove cuda-compat from LD_LIBRARY_PATH, and look for the cause in `nvidia-smi` and the kernel's log",
        )  # fmt: skip
    return passed(f"driver {version}, at least {minimum}", driver=version)


@check(
    "gpus-visible",
    needs=("gpu",),
    tags=("cuda", "host"),
    timeout=20.0,
    proves="A job gets the GPUs that were asked for, each once.",
    criterion="as many GPUs as requested, all answer, no UUID twice; MIG instances are named",
)
def gpus_visible(context: Context) -> Result:
    """Count the GPUs and look at their UUIDs."""
    with nvml.opened() as driver:
        gpus = driver.gpus()
    return judge_visible(gpus, launcher.count_visible(), context.requested_gpus)


def judge_visible(gpus: Sequence[Gpu], usable: int, requested: int | None) -> Result:
    """Judge a node's GPUs.

    Args:
        gpus: All that the driver lists.
        usable: How many of them CUDA_VISIBLE_DEVICES leaves.
        requested: How many were asked for; None for any number but 0.
    """
    figures = {"gpus": [gpu.name for gpu in gpus], "usable": usable, "mig": [gpu.mig for gpu in gpus if gpu.mig]}
    wanted = f"{requested} GPUs" if requested is not None else "at least one GPU"
    gone = [f"GPU {gpu.number}: {gpu.gone}" for gpu in gpus if gpu.gone]
    twice = [uuid for uuid, times in Counter(gpu.uuid for gpu in gpus if gpu.uuid).items() if times > 1]
    if gone:
        return failed(
            "; ".join(gone), expected="every GPU that is listed answers", **figures,
            todo="look for Xid lines in the kernel's log (dmesg), take the node out of use and reset it",
        )  # fmt: skip
    if twice:
        return failed(
            f"{', '.join(twice)} is listed more than once", expected="each GPU once", **figures,
            todo="look at what the container is given: --gpus, the device plugin, NVIDIA_VISIBLE_DEVICES",
        )  # fmt: skip
    if usable < 1 or (requested is not None and usable != requested):
        return failed(
            f"{usable} GPUs", expected=wanted, **figures,
            todo="give the container its GPUs (--gpus, nvidia.com/gpu) and look at CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    kinds = ", ".join(f"{count} x {name}" for name, count in Counter(gpu.name for gpu in gpus).items())
    cut = sum(len(gpu.mig) for gpu in gpus if gpu.mig)
    return passed(f"{usable} of {kinds}" + (f", {cut} MIG instances" if cut else ""), **figures)


@check(
    "gpu-health",
    needs=("gpu",),
    tags=("cuda", "host"),
    timeout=30.0,
    proves="No GPU has damaged memory or is slowed down.",
    criterion="no uncorrected memory error since the driver was loaded, no memory to replace, no slowdown of clocks",
)
def gpu_health(_context: Context) -> Result:
    """Ask the driver for errors and slowdowns."""
    with nvml.opened() as driver:
        gpus = driver.gpus()
        masks = {gpu.number: gpu.slowed for gpu in gpus if not gpu.gone}
        for _ in range(READINGS - 1):
            time.sleep(APART)
            masks = {index: mask & driver.slowed(driver.handle(gpus[index].uuid)) for index, mask in masks.items()}
    return judge_health(gpus, masks)


def judge_health(gpus: Sequence[Gpu], masks: dict[int, int]) -> Result:
    """Judge what the driver counted.

    Args:
        gpus: All GPUs.
        masks: Index -> nvmlClocksEventReasons that lasted.
    """
    broken: list[str] = []
    worn: list[str] = []
    for gpu in gpus:
        since_load, lifetime = gpu.errors or (0, 0)
        slowed = [reason for bit, reason in SLOWED.items() if masks.get(gpu.number, 0) & bit]
        found = {
            gpu.gone: bool(gpu.gone),
            f"{since_load} uncorrected memory errors since the driver was loaded": since_load > 0,
            "memory waits to be replaced": gpu.remap_pending,
            "memory could not be replaced": gpu.remap_failed,
            f"clocks held down: {', '.join(slowed)}": bool(slowed),
        }
        broken += [f"GPU {gpu.number}: {what}" for what, is_so in found.items() if is_so]
        if lifetime > since_load:
            worn.append(f"GPU {gpu.number}: {lifetime - since_load} uncorrected memory errors in earlier days")
    figures = {"errors": [gpu.errors for gpu in gpus], "slowed": [masks.get(gpu.number) for gpu in gpus]}
    expected = "no uncorrected memory error, no memory to replace, no slowdown"
    if broken:
        return failed(
            "; ".join(broken), expected=expected, **figures,
            todo="take the node out of use; reset the GPU for memory errors, look at cooling and power for clocks; "
            "if it comes back, have the card replaced",
        )  # fmt: skip
    if worn:
        return warned(
            "; ".join(worn), expected=expected, todo="watch this GPU; have it replaced if they grow", **figures
        )
    return passed(f"{len(gpus)} GPUs without a fault", **figures)
