"""The built wheel, installed outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl import __version__
from tests.commands import PREFIX, ROOT, STACKCTL, environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT,
                   capture_output=True, check=True)  # fmt: skip
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run stackctl from an environment that has the wheel and its dependencies, and no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*uv, "--require-hashes", "-r", str(ROOT / "locks" / "user.txt")], check=True)
    subprocess.run([*uv, "--no-deps", str(wheel)], check=True)

    def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [str(python.parent / "stackctl"), *words]
        given = environment(XDG_CACHE_HOME=str(folder / "cache"), STACK_RUNS=str(folder / "runs"), **env)
        given.pop("PYTHONPATH", None)
        return subprocess.run(argv, cwd=folder, env=given, capture_output=True, text=True, timeout=900, check=False)

    return run


def test_it_holds_catalog_templates_locks_and_payload(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "catalog.toml",
        "templates/base.dockerfile.j2",
        "locks/pytorch-cpu.txt",
        "build/apt-install",
        "build/horovod-wheel",
        "build/horovod-patch",
        "patches/horovod/01-cxx17.patch",
        "patches/horovod-python/05-keras.patch",
        "dockerfiles/pytorch-cpu.Dockerfile",
    ):
        assert f"stackctl/_assets/images/{name}" in names
    for name in ("launch/__main__.py", "train/gpt.py", "train/data/shakespeare.txt", "train/data/digits.csv.gz"):
        assert f"stackrt/{name}" in names
    assert not [name for name in names if name.startswith(("tests", "bench", "scripts"))]


def test_its_name_is_free_and_its_command_is_stackctl(wheel: Path) -> None:
    """On the package index `stackctl` is another project."""
    assert wheel.name == f"gpu_stackctl-{__version__}-py3-none-any.whl"
    info = f"gpu_stackctl-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    assert "\nName: gpu-stackctl\n" in metadata
    assert scripts.split() == ["[console_scripts]", "stackctl", "=", "stackctl.__main__:main"]


def test_an_installed_stackctl_plans_and_runs(installed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "stack-pytorch" in installed("images", STACK_IMAGE_PREFIX="stack-").stdout
    assert "node-1" in installed("run", "gpt", "--nodes", "2", "--on", "compose", "--dry-run").stdout
    done = installed("run", "--procs", "2", "--", "python", "-c", "print('hello')")
    assert done.returncode == 0, done.stderr
    assert "[1] hello" in done.stdout


def test_ranks_get_no_package_of_an_installed_stackctl_but_the_payload(
    installed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True)
    script = (
        "import importlib.util as u; print([n for n in ('stackrt', 'stackctl', 'yaml', 'click') if u.find_spec(n)])"
    )
    done = installed("run", "--", str(tmp_path / "other" / "bin" / "python"), "-c", script)
    assert "[0] ['stackrt']" in done.stdout, done.stderr


def test_an_installed_stackctl_has_no_sources_to_change(
    installed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    refused = installed("render")
    assert refused.returncode == 2
    assert "run this in a checkout" in refused.stderr


@pytest.mark.needs("docker")
def test_an_installed_stackctl_builds_the_same_image(
    image: str, installed: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Every layer comes from the cache that the checkout's build filled: the inputs are the same to the byte."""

    def layers(name: str) -> str:
        argv = ["docker", "image", "inspect", "--format", "{{.RootFS.Layers}}", name]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    try:
        done = installed("build", "pytorch", "--variant", "cpu", STACK_IMAGE_PREFIX=f"{PREFIX}wheel-")
        assert done.returncode == 0, done.stderr
        assert layers(f"{PREFIX}wheel-pytorch:cpu") == layers(image)
    finally:
        argv = ["docker", "image", "rm", "--force", f"{PREFIX}wheel-pytorch:cpu"]
        subprocess.run(argv, capture_output=True, check=False)


def imported_by(*argv: str) -> set[str]:
    """The packages that a Python process imports; there is no kubeconfig."""
    argv = (sys.executable, "-X", "importtime", *argv)
    done = subprocess.run(argv, env=environment(KUBECONFIG=os.devnull), capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_start_up_imports_nothing_heavy() -> None:
    """No docker, kubernetes, jinja2, torch, rich or yaml before it is needed."""
    for words in ("--help", "run gpt --nodes 2 --dry-run", "submit --nodes 2 --gpus 8 --dry-run"):
        imported = imported_by(STACKCTL, *words.split())
        assert imported & {"docker", "kubernetes", "jinja2", "torch", "rich", "yaml", "requests"} == set()
        if words == "--help":
            assert "msgspec" not in imported


def test_a_cluster_is_reached_without_loading_what_checks_manifests() -> None:
    assert "jsonschema" not in imported_by("-c", "import stackctl.engines.kube")
