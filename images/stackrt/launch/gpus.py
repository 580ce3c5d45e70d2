"""The GPUs that this node's ranks will see, by NVML through ctypes: the launcher's one NVML boundary."""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence

UUID_BYTES = 96
"""NVML_DEVICE_UUID_V2_BUFFER_SIZE."""
VERSION_BYTES = 80
"""NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE."""


def count_visible(env: Mapping[str, str] = os.environ) -> int:
    """Count the GPUs that a CUDA program of this environment can use; 0 without a driver."""
    return len(visible(env.get("CUDA_VISIBLE_DEVICES"), _uuids()))


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
    text = ctypes.create_string_buffer(VERSION_BYTES)
    with _nvml() as nvml:
        if nvml is None or nvml.nvmlSystemGetDriverVersion(text, VERSION_BYTES) != 0:
            return ""
        return text.value.decode()


def bus_ids(env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the PCI addresses of the visible GPUs, `0000:3b:00.0`, in order; "" for one that NVML does not tell."""
    chosen = visible(env.get("CUDA_VISIBLE_DEVICES"), _uuids())
    with _nvml() as nvml:
        return [_bus_id(nvml, uuid) if nvml is not None else "" for uuid in chosen]


class _PciInfo(ctypes.Structure):
    """nvmlPciInfo_t of nvml.h."""

    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("device_id", ctypes.c_uint),
        ("subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


def _bus_id(nvml: ctypes.CDLL, uuid: str) -> str:
    handle, info = ctypes.c_void_p(), _PciInfo()
    try:
        if nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
            return ""
        if nvml.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(info)) != 0:
            return ""
    except AttributeError:  # an NVML without these
        return ""
    # sysfs writes the domain with four digits and all in small letters.
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def _uuids() -> list[str]:
    count = ctypes.c_uint()
    with _nvml() as nvml:
        if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        return [uuid for index in range(count.value) if (uuid := _uuid(nvml, index))]


@contextlib.contextmanager
def _nvml() -> Iterator[ctypes.CDLL | None]:
    """Yield NVML, or None without a driver (NVML API reference: initialization, system queries, device queries)."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        yield None
        return
    if nvml.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _uuid(nvml: ctypes.CDLL, index: int) -> str:
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(UUID_BYTES)
    # A GPU whose handle fails has fallen off the bus; CUDA would not show it either.
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
        return ""
    if nvml.nvmlDeviceGetUUID(handle, text, UUID_BYTES) != 0:
        return ""
    return text.value.decode()
