"""Which CUDA the packages of a lock bring, and that it is one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from stackctl.images.lockfile import Pin

_SUFFIX = re.compile(r"-cu(\d\d)$")
# These have no suffix from CUDA 13 on; their own version is CUDA's.
_TOOLKIT = ("cuda-bindings", "cuda-toolkit", "nvidia-cuda-", "nvidia-nvjitlink")
_LIBRARIES = {"cuda": "nvidia-cuda-runtime", "cudnn": "nvidia-cudnn", "nccl": "nvidia-nccl"}


def versions(pins: Iterable[Pin]) -> dict[str, str]:
    """`{"cuda": "13.0.96", "cudnn": "9.20.0.48", "nccl": "2.29.7"}` of a CUDA lock; those that are there."""
    named = {_SUFFIX.sub("", pin.name): pin.version for pin in pins}
    return {library: named[name] for library, name in _LIBRARIES.items() if name in named}


def majors(pins: Iterable[Pin]) -> dict[str, str]:
    """CUDA major -> the first package that is built for it."""
    found: dict[str, str] = {}
    for pin in pins:
        suffix = _SUFFIX.search(pin.name)
        if suffix:
            found.setdefault(suffix[1], f"{pin.name}=={pin.version}")
        elif pin.name.startswith(_TOOLKIT):
            found.setdefault(pin.version.split(".")[0], f"{pin.name}=={pin.version}")
    return found


def clash(found: Mapping[str, str], wanted: str) -> str:
    """What is wrong with the CUDA majors of a lock, in a sentence; empty where nothing is.

    Two majors in one environment break `import torch` (pytorch#186591).

    Args:
        found: CUDA major -> package, from `majors`.
        wanted: The catalog's `cuda`, such as `13.0`; empty for a CPU variant.
    """
    major = wanted.split(".", maxsplit=1)[0]
    others = [f"{package} is for CUDA {other}" for other, package in found.items() if other != major]
    if not others:
        return ""
    if not wanted:
        return f"a CPU variant has no CUDA, but {others[0]}"
    if major in found:
        return f"one image has one CUDA major, but {found[major]} is for CUDA {major} and {others[0]}"
    return f"the catalog says CUDA {wanted}, but {others[0]}"
