"""A CUDA image on a driver that is too old, one that is new enough, and one that compatibility libraries help."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("docker")

NVML = """
#include <stdio.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { return snprintf(text, size, "GPU-aa11") < 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "%s", DRIVER) < 0; }
"""
"""NVML of a machine with one GPU and the driver DRIVER: there is none here."""


def launch(image: str, tmp_path: Path, driver: str, compat: str = "") -> subprocess.CompletedProcess[str]:
    """Start a rank that prints its LD_LIBRARY_PATH, in an image that says it has CUDA 13."""
    (tmp_path / "nvml.c").write_text(NVML)
    (tmp_path / "image.json").write_text(json.dumps({"cuda": "13.0", "minimum_driver": "580"}))
    (tmp_path / "compat").mkdir()
    if compat:
        (tmp_path / "compat" / f"libcuda.so.{compat}").touch()
        (tmp_path / "compat" / "libcuda.so.1").symlink_to(f"libcuda.so.{compat}")
    script = (
        f"gcc -shared -fPIC -DDRIVER='\"{driver}\"' -o /tmp/libnvidia-ml.so.1 /test/nvml.c"
        " && export LD_LIBRARY_PATH=/tmp STACK_DEVICE=cuda"
        " && python -m stackrt.launch -- sh -c 'echo path=$LD_LIBRARY_PATH'"
    )
    argv = ["docker", "run", "--rm", "--network", "none", "--volume", f"{tmp_path}:/test:ro"]
    argv += ["--volume", f"{tmp_path}/image.json:/opt/stack/image.json:ro"]
    argv += ["--volume", f"{tmp_path}/compat:/usr/local/cuda/compat:ro", image, "sh", "-c", script]
    tmp_path.chmod(0o755)
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def test_an_old_driver_is_refused_before_the_ranks_start(image: str, tmp_path: Path) -> None:
    done = launch(image, tmp_path, "550.54.15")
    assert done.returncode == 78
    assert "CUDA 13.0 of this image needs NVIDIA driver 580 or newer, this host has 550.54.15" in done.stderr
    assert "path=" not in done.stdout


@pytest.mark.parametrize(
    ("driver", "path"), [("580.65.06", "/tmp"), ("550.54.15", "/usr/local/cuda/compat:/tmp")], ids=["new", "old"]
)
def test_compatibility_libraries_are_used_on_an_old_driver_only(
    image: str, tmp_path: Path, driver: str, path: str
) -> None:
    done = launch(image, tmp_path, driver, compat="580.95.05")
    assert (done.returncode, f"path={path}\n" in done.stdout) == (0, True), done.stdout + done.stderr
