"""What the driver says of this machine's GPUs: NVML through ctypes.

Names, types and codes are those of nvml.h (driver 580; published in github.com/NVIDIA/go-nvml).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

LIBRARY = "libnvidia-ml.so.1"
TEXT = 96
"""NVML_DEVICE_UUID_V2_BUFFER_SIZE and NVML_DEVICE_NAME_V2_BUFFER_SIZE; the driver's version needs 80."""

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, FUNCTION_NOT_FOUND = 3, 4, 6, 13
GONE = {
    15: "it has fallen off the bus (NVML_ERROR_GPU_IS_LOST)",
    16: "it must be reset before it can be used again (NVML_ERROR_RESET_REQUIRED)",
    999: "the driver cannot reach it (NVML_ERROR_UNKNOWN)",
}
"""Codes of a GPU that is listed but does not work, nvmlReturn_t."""

UNCORRECTED, VOLATILE, AGGREGATE = 1, 0, 1
"""nvmlMemoryErrorType_t, nvmlEccCounterType_t."""

CLOCK_SM = 1
"""nvmlClockType_t."""

TOPOLOGY = {0: "one board", 10: "one PCIe switch", 20: "PCIe switches", 30: "a host bridge", 40: "one NUMA node",
            50: "between NUMA nodes"}  # fmt: skip
"""nvmlGpuTopologyLevel_t: what two GPUs have in common."""

P2P_NVLINK, P2P_OK = 2, 0
"""nvmlGpuP2PCapsIndex_t, nvmlGpuP2PStatus_t."""


class NoDriver(Exception):
    """There is no NVIDIA driver here, or it does not answer."""


class GpuGone(Exception):
    """A GPU does not answer."""


class Gpu(NamedTuple):
    """One GPU as the driver sees it.

    Attributes:
        number: Its place in NVML's order, by PCI address.
        uuid: `GPU-…`; empty if the GPU does not answer.
        name: The product, `NVIDIA H100 80GB HBM3`.
        gone: Why it does not answer; empty if it does.
        mig: Its MIG instances, `MIG-…`; None unless it is cut into such.
        errors: Uncorrected memory errors since the driver was loaded, and in its lifetime; None without ECC.
        remap_pending: Memory with errors is replaced at the next reset.
        remap_failed: Memory with errors could not be replaced.
        slowed: Why its clocks are held down now: a mask of nvmlClocksEventReasons.
    """

    number: int
    uuid: str = ""
    name: str = ""
    gone: str = ""
    mig: tuple[str, ...] | None = None
    errors: tuple[int, int] | None = None
    remap_pending: bool = False
    remap_failed: bool = False
    slowed: int = 0


class _PciInfo(ctypes.Structure):
    """nvmlPciInfo_t."""

    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("device_id", ctypes.c_uint),
        ("subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """NVML's functions; get one from `opened`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def driver(self) -> str:
        """The driver's version, `580.95.05`."""
        text = ctypes.create_string_buffer(TEXT)
        self._call("nvmlSystemGetDriverVersion", text, ctypes.c_uint(TEXT))
        return text.value.decode()

    def gpus(self) -> list[Gpu]:
        """Every GPU that this container or machine is given."""
        return [self._gpu(index) for index in range(self._count())]

    def uuids(self) -> list[str]:
        """The `GPU-…` of each GPU that answers, in order: CUDA does not show one that has fallen off the bus either."""
        found = []
        for index in range(self._count()):
            with suppress(GpuGone, NoDriver):
                found.append(self._text("nvmlDeviceGetUUID", self._at(index)))
        return [uuid for uuid in found if uuid]

    def bus_id(self, uuid: str) -> str:
        """A GPU's PCI address as sysfs writes it, `0000:3b:00.0`; "" if it is not told."""
        info = _PciInfo()
        with suppress(GpuGone, NoDriver):
            device = self.handle(uuid)
            if device is not None and self._call("nvmlDeviceGetPciInfo_v3", device, ctypes.byref(info)):
                # sysfs writes the domain with four digits and all in small letters.
                return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"
        return ""

    def handle(self, uuid: str) -> ctypes.c_void_p | None:
        """Find a GPU by its UUID, `GPU-…`; None for a MIG instance, which has no clocks or links of its own.

        Raises:
            GpuGone: It does not answer.
        """
        handle = ctypes.c_void_p()
        found = self._call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(uuid.encode()), ctypes.byref(handle))
        return handle if found else None

    def slowed(self, device: ctypes.c_void_p | None) -> int:
        """Why the clocks are held down: a mask of nvmlClocksEventReasons (renamed in driver 535)."""
        if device is None:
            return 0
        mask = ctypes.c_ulonglong()
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if self._call(name, device, ctypes.byref(mask)):
                return mask.value
        return 0

    def sm_clock(self, device: ctypes.c_void_p | None) -> int:
        """The clock of the multiprocessors now, MHz; 0 if it is not told."""
        if device is None:
            return 0
        clock = ctypes.c_uint()
        self._call("nvmlDeviceGetClockInfo", device, ctypes.c_int(CLOCK_SM), ctypes.byref(clock))
        return clock.value

    def pcie(self, device: ctypes.c_void_p | None) -> tuple[int, int, int, int]:
        """The PCIe link: generation and width now, then the most that card and slot can do; 0 where not told."""
        if device is None:
            return 0, 0, 0, 0
        values = []
        for kind in ("Curr", "Max"):
            for what in ("Generation", "Width"):
                value = ctypes.c_uint()
                self._call(f"nvmlDeviceGet{kind}PcieLink{what}", device, ctypes.byref(value))
                values.append(value.value)
        return values[0], values[1], values[2], values[3]

    def free_memory(self, device: ctypes.c_void_p | None) -> int | None:
        """Bytes of a GPU's memory that nobody has; None if it is not told."""
        about = _Memory()
        if device is None or not self._call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(about)):
            return None
        return int(about.free)

    def between(self, one: ctypes.c_void_p | None, other: ctypes.c_void_p | None) -> str:
        """What joins two GPUs: `NVLink`, or what they have in common."""
        if one is None or other is None:
            return "unknown"
        status, level = ctypes.c_int(-1), ctypes.c_int(-1)
        self._call("nvmlDeviceGetP2PStatus", one, other, ctypes.c_int(P2P_NVLINK), ctypes.byref(status))
        if status.value == P2P_OK:
            return "NVLink"
        self._call("nvmlDeviceGetTopologyCommonAncestor", one, other, ctypes.byref(level))
        return TOPOLOGY.get(level.value, "unknown")

    def _count(self) -> int:
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return count.value

    def _at(self, index: int) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _gpu(self, index: int) -> Gpu:
        uuid = name = ""
        try:
            handle = self._at(index)
            uuid, name = self._text("nvmlDeviceGetUUID", handle), self._text("nvmlDeviceGetName", handle)
            pending, failed = self._replaced_memory(handle)
            return Gpu(
                index, uuid, name, mig=self._mig(handle), errors=self._errors(handle),
                remap_pending=pending, remap_failed=failed, slowed=self.slowed(handle),
            )  # fmt: skip
        except GpuGone as error:
            return Gpu(index, uuid, name, gone=str(error))

    def _text(self, name: str, device: ctypes.c_void_p) -> str:
        text = ctypes.create_string_buffer(TEXT)
        self._call(name, device, text, ctypes.c_uint(TEXT))
        return text.value.decode()

    def _mig(self, device: ctypes.c_void_p) -> tuple[str, ...] | None:
        mode, pending, most = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()
        if not self._call("nvmlDeviceGetMigMode", device, ctypes.byref(mode), ctypes.byref(pending)) or not mode.value:
            return None
        self._call("nvmlDeviceGetMaxMigDeviceCount", device, ctypes.byref(most))
        found = []
        for index in range(most.value):
            part = ctypes.c_void_p()
            if self._call("nvmlDeviceGetMigDeviceHandleByIndex", device, ctypes.c_uint(index), ctypes.byref(part)):
                found.append(self._text("nvmlDeviceGetUUID", part))
        return tuple(found)

    def _errors(self, device: ctypes.c_void_p) -> tuple[int, int] | None:
        counts = []
        for counter in (VOLATILE, AGGREGATE):
            count = ctypes.c_ulonglong()
            name, kinds = "nvmlDeviceGetTotalEccErrors", (ctypes.c_int(UNCORRECTED), ctypes.c_int(counter))
            if not self._call(name, device, *kinds, ctypes.byref(count)):
                return None
            counts.append(count.value)
        return counts[0], counts[1]

    def _replaced_memory(self, device: ctypes.c_void_p) -> tuple[bool, bool]:
        """Rows that wait to be replaced, and ones that could not be; GPUs before Ampere retire pages instead."""
        corrected, uncorrected, pending, failed = (ctypes.c_uint() for _ in range(4))
        found = (ctypes.byref(value) for value in (corrected, uncorrected, pending, failed))
        if not self._call("nvmlDeviceGetRemappedRows", device, *found):
            self._call("nvmlDeviceGetRetiredPagesPendingStatus", device, ctypes.byref(pending))
        return bool(pending.value), bool(failed.value)

    def _call(self, name: str, *arguments: object) -> bool:
        """Call a function; False where GPU, driver or user has no such thing.

        Raises:
            GpuGone: The GPU does not answer.
            NoDriver: Any other failure.
        """
        function = getattr(self._library, name, None)
        code = function(*arguments) if function else FUNCTION_NOT_FOUND
        if code in GONE:
            raise GpuGone(GONE[code])
        if code not in (0, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, FUNCTION_NOT_FOUND):
            raise NoDriver(f"{name} failed with NVML code {code}")
        return code == 0


@contextmanager
def opened() -> Iterator[Nvml]:
    """Open NVML.

    Raises:
        NoDriver: There is no driver, or it does not start.
    """
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise NoDriver(f"{LIBRARY} cannot be opened: {error}") from None
    if code := library.nvmlInit_v2():
        raise NoDriver(f"nvmlInit_v2 failed with NVML code {code}")
    try:
        yield Nvml(library)
    finally:
        library.nvmlShutdown()
