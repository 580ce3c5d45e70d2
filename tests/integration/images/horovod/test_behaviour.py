"""Horovod keeps its promises on two ranks, and is compiled when, and only when, it must be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.images import build as builder
from stackctl.images import catalog
from stackctl.images.settings import from_env
from tests.commands import PREFIX, ROOT, Stackctl
from tests.support.images import in_image

# An image that is not in the cache compiles Horovod first.
pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

HERE = Path(__file__).parent
Build = Callable[[str], str]


@pytest.mark.parametrize(
    ("name", "script", "checks"),
    [
        ("horovod-pytorch", "behaviour_torch.py",
         "allreduce allgather broadcast alltoall optimizer process_sets elastic_state join"),
        ("horovod-tensorflow", "behaviour_tf.py",
         "allreduce allgather broadcast alltoall gradient_tape process_sets join"),
    ],
)  # fmt: skip
def test_horovod_keeps_its_promises_on_two_ranks(
    built: Build, stackctl: Stackctl, tmp_path: Path, name: str, script: str, checks: str
) -> None:
    built(name)
    shutil.copy(HERE / script, tmp_path)
    tmp_path.chmod(0o755)  # the container is another user
    out = tmp_path / "out"
    words = ("--image", name, "--nodes", "2", "--procs", "1", "--on", "compose", "--out", str(out))
    done = stackctl("run", *words, "--", "python", script, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in (0, 1):
        printed = (out / "logs" / "attempt-1" / f"rank-{rank}.log").read_text()
        assert [line[3:] for line in printed.splitlines() if line.startswith("ok ")] == checks.split()


@pytest.mark.parametrize("name", ["horovod-pytorch", "horovod-tensorflow"])
def test_what_compiled_horovod_is_not_in_the_image(built: Build, tmp_path: Path, name: str) -> None:
    # PyTorch's images have a C++ compiler and Python's headers of their own, for torch.compile.
    tools = "make cmake patch ccache" if name == "horovod-pytorch" else "make cmake patch ccache cc g++"
    found = in_image(
        built(name), tmp_path, "sh", "-c", f"for tool in {tools}; do command -v $tool; done; ls -d /dist; true"
    )
    assert found == ""
    built_with = json.loads(
        in_image(built(name), tmp_path, "python", "-c", "import horovod, json, pathlib; "
                 "print((pathlib.Path(horovod.__file__).parent / 'metadata.json').read_text())")
    )  # fmt: skip
    framework = "pytorch" if name == "horovod-pytorch" else "tensorflow"
    assert set(built_with) - {"dummy"} == {framework}


def compile_in(tree: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Build the stage that compiles Horovod from a copy of the build's inputs."""
    (target,) = catalog.targets(catalog.load(), name, "cpu", PREFIX)
    steps = builder.plan(target, from_env(os.environ), context=tree, images=tree / "images", labels={})
    argv = [word for word in steps.argv if word not in ("--load", "--tag", target.tag)]  # the tag is the whole image's
    argv[3:3] = ["--target", "builder", "--output", "type=cacheonly", "--progress", "plain"]
    given = {**os.environ, **steps.secrets}
    return subprocess.run(argv, env=given, capture_output=True, text=True, timeout=1500, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the build's inputs, to change."""
    shutil.copytree(ROOT / "images", tmp_path / "images", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["horovod-pytorch", "horovod-tensorflow"])
def test_a_change_of_what_is_not_compiled_compiles_nothing(built: Build, tree: Path, name: str) -> None:
    built(name)
    (tree / "images" / "stackrt" / "new.py").write_text("NEW = True\n")
    with (tree / "images" / "locks" / f"{name}-cpu.txt").open("a") as lock:
        lock.write("# another package\n")
    patch = tree / "images" / "patches" / "horovod-python" / "05-keras.patch"
    patch.write_text(f"Another reason.\n{patch.read_text()}")
    done = compile_in(tree, name)
    lines = done.stderr.splitlines()
    number = next(line.split()[0] for line in lines if "/run/horovod-wheel" in line)
    assert f"{number} CACHED" in lines, done.stderr[-3000:]


def test_a_source_release_with_another_hash_is_not_compiled(built: Build, tree: Path) -> None:
    built("horovod-pytorch")
    lock = tree / "images" / "locks" / "horovod-pytorch-cpu.horovod.txt"
    lock.write_text(lock.read_text().replace("sha256:9", "sha256:0"))
    done = compile_in(tree, "horovod-pytorch")
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert "applying 01" not in done.stderr
