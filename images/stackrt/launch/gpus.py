"""The GPUs that this node's ranks will see."""

import os
from collections.abc import Mapping, Sequence

from stackrt import nvml


def count_visible(env: Mapping[str, str] = os.environ) -> int:
    """Count the GPUs that a CUDA program of this environment can use; 0 without a driver."""
    return len(all_visible(env))


def all_visible(env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the GPUs that a CUDA program of this environment can use, in its order; none without a driver."""
    return visible(env.get("CUDA_VISIBLE_DEVICES"), _uuids())


def visible(selection: str | None, uuids: Sequence[str]) -> list[str]:
    """Apply CUDA_VISIBLE_DEVICES as the CUDA driver does: by index or UUID prefix, ending at the first wrong entry.

    Args:
        selection: the variable's value; None when it is not set, "" hides every GPU.
        uuids: the machine's GPUs, `GPU-…`, in NVML's order.

    Returns:
        The selected GPUs. MIG instances (`MIG-…`) are taken as named: NVML lists only whole GPUs.
    """
    if selection is None:
        return list(uuids)
    chosen: list[str] = []
    for entry in (part.strip() for part in selection.split(",")):
        if entry.startswith("MIG-") and uuids:
            found = [entry]
        elif entry.isascii() and entry.isdigit():
            found = list(uuids[int(entry) :][:1])
        else:
            found = [uuid for uuid in uuids if entry.startswith("GPU-") and uuid.startswith(entry)]
        if len(found) != 1:
            break
        if found[0] in chosen:
            # The driver takes a list that names a GPU twice for an error and shows none.
            return []
        chosen += found
    return chosen


def driver_version() -> str:
    """Return the version of this host's driver, such as `580.65.06`; "" without a driver."""
    try:
        with nvml.opened() as driver:
            return driver.driver()
    except (nvml.NoDriver, nvml.GpuGone):
        return ""


def bus_ids(env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the PCI addresses of the visible GPUs, `0000:3b:00.0`, in order; "" for one that NVML does not tell."""
    chosen = all_visible(env)
    try:
        with nvml.opened() as driver:
            return [driver.bus_id(uuid) for uuid in chosen]
    except nvml.NoDriver:
        return [""] * len(chosen)


def _uuids() -> list[str]:
    try:
        with nvml.opened() as driver:
            return driver.uuids()
    except (nvml.NoDriver, nvml.GpuGone):
        return []
