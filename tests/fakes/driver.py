"""A fake NVIDIA driver: real shared libraries, so that the checks' own ctypes code runs unchanged."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")


@dataclass(frozen=True)
class FakeGpu:
    """A GPU to show; healthy unless told otherwise. `driver.c` says what the fields mean to NVML."""

    gpu: str
    name: str = "NVIDIA H100 80GB HBM3"
    gone: int = 0
    ecc: int = 1
    since_load: int = 0
    lifetime: int = 0
    pending: int = 0
    failed: int = 0
    slowed: int = 0x01  # idle, which is no fault
    free: int = 80 << 30
    mig_mode: int = 0
    mig: Sequence[str] = ()


def two() -> list[FakeGpu]:
    return [FakeGpu("GPU-aaaaaaaa-0000-0000-0000-000000000000"), FakeGpu("GPU-bbbbbbbb-0000-0000-0000-000000000000")]


@dataclass(frozen=True)
class FakeDriver:
    """A machine to show: the kernel driver, what libcuda offers, and the GPUs."""

    driver: str = "580.95.05"
    cuda: int = 13000
    cuda_error: int = 0
    gpus: Sequence[FakeGpu] = field(default_factory=two)

    def write(self, folder: Path) -> dict[str, str]:
        """Put the libraries and their state into a folder; returns the environment in which programs find them."""
        for name in LIBRARIES:
            shutil.copy(compiled() / name, folder)
        lines = [f"driver={self.driver}", f"cuda={self.cuda}", f"cuda_error={self.cuda_error}"]
        for gpu in self.gpus:
            for key, value in vars(gpu).items():
                lines += [f"{key}={one}" for one in ([value] if isinstance(value, (str, int)) else value)]
        state = folder / "fake-driver"
        state.write_text("\n".join(lines) + "\n")
        return {"LD_LIBRARY_PATH": str(folder), "FAKE_DRIVER": str(state)}


def load() -> None:
    """Load the libraries into this process: it then gets them by name, without LD_LIBRARY_PATH at its start."""
    for name in LIBRARIES:
        ctypes.CDLL(str(Path(os.environ["LD_LIBRARY_PATH"]) / name))


@functools.cache
def compiled() -> Path:
    """The folder of the libraries, compiled once a test run."""
    folder = Path(tempfile.mkdtemp(prefix="stack-fake-driver-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    flags = ["-std=c11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    for name in LIBRARIES:
        argv = ["cc", *flags, f"-Wl,-soname,{name}", "-o", str(folder / name), str(SOURCE)]
        subprocess.run(argv, check=True)
    return folder
