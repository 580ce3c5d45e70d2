"""What this machine can do, and what must not be missing (STACK_REQUIRE)."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

REQUIRED = frozenset(filter(None, os.environ.get("STACK_REQUIRE", "").split(",")))


@functools.cache
def lacks_docker() -> str:
    """Why no container can run here; empty if one can."""
    if shutil.which("docker") is None:
        return "the docker client is not installed"
    answer = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return "no Docker engine answers"
    for plugin in ("buildx", "compose"):
        if subprocess.run(["docker", plugin, "version"], capture_output=True, check=False).returncode != 0:
            return f"the Docker plugin {plugin} is not installed"
    return ""


@functools.cache
def lacks_torch() -> str:
    """Why nothing can be trained outside a container; empty if it can."""
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} not installed (make train-env)" if missing else ""


@functools.cache
def lacks_index() -> str:
    """Why no package can be resolved here; empty if one can."""
    uv = str(Path(sys.executable).parent / "uv")
    try:
        argv = [uv, "pip", "compile", "--quiet", "--no-cache", "-"]
        done = subprocess.run(argv, input="iniconfig\n", capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "uv is not installed, or the package index does not answer"
    return "" if done.returncode == 0 else "the package index does not answer"


@functools.cache
def lacks_torch_index() -> str:
    """Why torch's CPU build cannot be resolved here, which is on an index of its own; empty if it can."""
    from stackctl import assets
    from stackctl.images import build, catalog, settings

    given, (target, *_) = settings.from_env(os.environ), catalog.targets(catalog.load(), "pytorch", "cpu")
    if given.wheelhouse and build.wheels_at_hand(target, given.wheelhouse, assets.images_dir()):
        return lacks_index()
    try:
        with urllib.request.urlopen(f"{(given.torch_index or target.variant.index).rstrip('/')}/torch/", timeout=30):
            return lacks_index()
    except OSError:
        return "PyTorch's index does not answer, and no STACK_WHEELHOUSE holds torch"


@functools.cache
def lacks_compiler() -> str:
    """Why no C can be compiled here; empty if it can."""
    return "" if shutil.which("cc") else "there is no C compiler (cc)"


OLDEST_JAVA = 17
"""That Spark runs on."""


@functools.cache
def lacks_java() -> str:
    """Why Spark cannot run here; empty if it can. Spark itself is installed by its test."""
    if shutil.which("java") is None:
        return f"Java {OLDEST_JAVA} or newer is not installed, which Spark needs"
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    return "" if found and int(found[1]) >= OLDEST_JAVA else f"Spark needs Java {OLDEST_JAVA} or newer: {said}"


CUDA_IMAGES_GB = 20
"""Of disk, to build all that are built by default from nothing."""


@functools.cache
def lacks_cuda_images() -> str:
    """Why the CUDA images cannot be built here; empty if they can. What the builder holds takes no more room."""
    from stackctl.images import catalog
    from stackctl.images.lock_list import lock_of

    root = subprocess.run(
        ["docker", "info", "--format", "{{.DockerRootDir}}"], capture_output=True, text=True, check=False
    )
    folder = root.stdout.strip()
    if root.returncode != 0 or not Path(folder).is_dir():
        return "the Docker engine's disk is not here"
    free = shutil.disk_usage(folder).free / 1e9
    if free >= CUDA_IMAGES_GB:
        return ""
    argv = ["docker", "buildx", "du", "--verbose"]
    held = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    defaults = [target for target in catalog.targets(catalog.load()) if target.image.default and target.variant.cuda]
    # The builder's record of the step that copies an image's locks into it names them.
    absent = [target.tag for target in defaults if f"locks/{lock_of(target, 'packages').file} " not in held]
    if not absent:
        return ""
    return f"CUDA images take {CUDA_IMAGES_GB} GB, {free:.0f} GB are free, and {', '.join(absent)} would be built anew"


def lacks_cluster() -> str:
    """Why no test can have a Kubernetes; empty if it can."""
    from tests.cluster.harness import cluster, programs

    return "" if cluster.GIVEN else programs.lacks()


def registry_program() -> str:
    """The registry of Debian's package docker-registry; empty if there is none. CI unpacks it beside its caches."""
    unpacked = Path(os.environ.get("STACK_CI_STATE", "/var/tmp/stackctl-ci"), "registry/usr/bin/docker-registry")
    return shutil.which("docker-registry") or (str(unpacked) if unpacked.exists() else "")


def lacks_registry() -> str:
    """Why no image can be pushed here; empty if one can."""
    return "" if registry_program() else "docker-registry is not installed"


def lacks_root() -> str:
    """Why nothing can be mounted here; empty if it can."""
    return "" if os.getuid() == 0 else "mounting needs root"


def lacks_linux() -> str:
    """Why Linux's own features are absent; empty on Linux."""
    return "" if sys.platform == "linux" else "needs Linux"


CAPABILITIES: dict[str, Callable[[], str]] = {
    "docker": lacks_docker,
    "torch": lacks_torch,
    "index": lacks_index,
    "torch-index": lacks_torch_index,
    "registry": lacks_registry,
    "root": lacks_root,
    "linux": lacks_linux,
    "compiler": lacks_compiler,
    "cuda-images": lacks_cuda_images,
    "cluster": lacks_cluster,
    "java": lacks_java,
}
