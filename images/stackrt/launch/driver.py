"""Whether this host's NVIDIA driver is new enough for the image's CUDA; a newer user-mode driver where it is not."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stackrt.contract import FACTS
from stackrt.versions import numbers

COMPAT = Path("/usr/local/cuda/compat")
"""Where NVIDIA's cuda-compat packages put the libcuda.so.1 of a newer driver (forward compatibility)."""


class Choice(NamedTuple):
    """What the ranks load `libcuda.so.1` from, or why they cannot run."""

    folder: str = ""
    """A folder to put first on LD_LIBRARY_PATH; "" for the host's own driver."""
    problem: str | None = None


def choose(facts: Mapping[str, str], driver: str, compat: str) -> Choice:
    """Compare the host's driver with what the image needs.

    Args:
        facts: `cuda` and `minimum_driver` of the image; none of them outside of an image.
        driver: the host's driver, such as `550.54.15`; "" where NVML does not tell.
        compat: the driver version of the libraries in COMPAT; "" where there are none.
    """
    needed = facts.get("minimum_driver", "")
    if not needed or not driver or numbers(driver) >= numbers(needed):
        # The host's own is also right where compat is there: cuInit ends with error 803 if an older one hides it.
        return Choice()
    if compat and numbers(compat) >= numbers(needed):
        return Choice(folder=str(COMPAT))
    return Choice(
        problem=f"CUDA {facts.get('cuda', '')} of this image needs NVIDIA driver {needed} or newer, this host has "
        f"{driver}; update the driver, or use an image with an older CUDA"
        + (f" ({COMPAT} has {compat}, which is too old as well)" if compat else "")
    )


def image_facts(path: Path = FACTS) -> Mapping[str, str]:
    """Read what the image says of itself; nothing outside of an image."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def compat_version(folder: Path = COMPAT) -> str:
    """Return the driver version of a folder of compatibility libraries, by the name of its libcuda; "" if none."""
    if not os.path.exists(folder / "libcuda.so.1"):  # noqa: PTH110 - pathlib's raises where we may not look
        return ""
    names = [path.name for path in folder.glob("libcuda.so.*.*")]
    return max((name.removeprefix("libcuda.so.") for name in names), key=numbers, default="")
