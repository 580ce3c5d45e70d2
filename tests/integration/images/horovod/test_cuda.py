"""Horovod in the CUDA images without a GPU: what is linked, and that ranks on the CPU agree."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl import assets
from stackctl.images import catalog
from stackctl.images.lock_list import pins_of
from stackrt.checks.horovod import LOADED
from tests.support.images import steps

# An image that is not in the cache compiles Horovod first.
pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
Build = Callable[[str], str]
ROWS = [("horovod-pytorch", "torch"), ("horovod-tensorflow", "tensorflow")]
# Prints what Horovod says of itself, and where the libraries that it needs were found.
LINKED = """
import json, importlib, sys
hvd = importlib.import_module("horovod." + sys.argv[1])
with open("/proc/self/maps") as maps:
    mapped = {line.split()[-1] for line in maps if ".so" in line}
print(json.dumps({
    "built": [name for name in ("gloo", "mpi", "nccl", "cuda") if getattr(hvd, name + "_built")()],
    "nccl": hvd.nccl_built(),
    "libraries": sorted(path for path in mapped if "libnccl" in path or "libcudart" in path),
}))
"""


def in_image(image: str, *words: str, ranks: int = 1) -> str:
    """Run a command in one container without network or GPU, on some ranks; returns what it printed."""
    # Gloo crashes where a host has no address for its own name, as without a network.
    argv = ["docker", "run", "--rm", "--network", "none", "--hostname", "localhost"]
    argv += ["--env", f"STACK_PROCS={ranks}", "--env", "STACK_DEVICE=cpu"]
    argv += ["--env", "STACK_FRAMEWORK=horovod", "--volume", f"{HERE}:/workspace:ro", image]
    argv += ["python", "-m", "stackrt.launch", "--"] if ranks > 1 else []
    done = subprocess.run([*argv, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "script"), [
    ("horovod-pytorch", "behaviour_torch.py"), ("horovod-tensorflow", "behaviour_tf.py"),
])  # fmt: skip
def test_two_ranks_without_a_gpu_agree(built: Build, name: str, script: str) -> None:
    # Built for CUDA, TensorFlow's join has a kernel for GPUs alone.
    leave_out = ["join"] if name == "horovod-tensorflow" else []
    printed = in_image(built(f"{name}:cuda"), "python", script, *leave_out, ranks=2)
    checks = [line.partition("ok ")[2] for line in printed.splitlines() if line.startswith("[1] ok ")]
    assert {"allreduce", "allgather", "broadcast", "process_sets"} < set(checks)
    assert ("join" in checks) != bool(leave_out)
    assert {"optimizer", "gradient_tape"} & set(checks)


@pytest.mark.parametrize(("name", "framework"), ROWS)
def test_nccl_is_linked_and_is_the_frameworks_own(built: Build, name: str, framework: str) -> None:
    linked = json.loads(in_image(built(f"{name}:cuda"), "python", "-c", LINKED, framework))
    assert linked["built"] == ["gloo", "nccl", "cuda"]
    (target,) = catalog.targets(catalog.load(), name, "cuda")
    pins = pins_of(target, assets.images_dir(), "framework")
    major, minor, patch = next(map(int, pin.version.split(".")) for pin in pins if pin.name.startswith("nvidia-nccl-"))
    assert linked["nccl"] == major * 10000 + minor * 100 + patch
    folders = [path.rpartition("/")[0] for path in linked["libraries"]]
    assert len(folders) == 2, linked
    assert all(folder.startswith("/opt/venv/lib/python3.11/site-packages/nvidia/") for folder in folders), folders


@pytest.mark.parametrize(("name", "framework"), ROWS)
def test_check_build_names_what_is_in(built: Build, name: str, framework: str) -> None:
    framework_loaded = ("python", "-P", "-c", LOADED, f"horovod.{framework}")
    printed = in_image(built(f"{name}:cuda"), *framework_loaded, "/opt/venv/bin/horovodrun", "--check-build")
    there = {line.strip()[4:].lower() for line in printed.splitlines() if line.strip().startswith("[X]")}
    if framework == "tensorflow":
        # horovodrun takes PyTorch for built where `import horovod.torch` succeeds, and it does so without its library.
        there.discard("pytorch")
    assert there == {{"torch": "pytorch"}.get(framework, framework), "gloo", "nccl"}


@pytest.mark.parametrize(("name", "plain"), [("horovod-pytorch", "pytorch"), ("horovod-tensorflow", "tensorflow")])
def test_the_frameworks_layer_is_shared_and_the_toolkit_is_gone(built: Build, name: str, plain: str) -> None:
    with_horovod, without = steps(built(f"{name}:cuda")), steps(built(f"{plain}:cuda"))
    # Debian's packages, the user and the virtual environment, what root's Python reads, the framework.
    assert ["/run/uv-install" in step for step in without[:4]] == [False, False, False, True]
    assert with_horovod[:4] == without[:4]
    read = [assets.images_dir() / "locks" / f"{image}-cuda.framework.txt" for image in (name, plain)]
    assert read[0].read_bytes() == read[1].read_bytes()
    script = "ls -d /opt/cuda /dist; command -v nvcc ccache cmake"
    found = in_image(built(f"{name}:cuda"), "sh", "-c", f"({script}) 2>/dev/null; true")
    assert found == ""
