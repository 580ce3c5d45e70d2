"""Locks as the resolver makes them, in a copy of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stackctl.images import lockfile
from tests.commands import ROOT

Copy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def copy(tmp_path: Path) -> tuple[Path, Copy]:
    """A copy of what stackctl reads, and stackctl run from it."""
    for name in ("stackctl", "images"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "compose").mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": path}
        code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stackctl.cli.main import main; main()"
        argv = [sys.executable, "-c", code, str(tmp_path), *words]
        return subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)

    return tmp_path, run


@pytest.mark.needs("index")
def test_locks_are_made_from_the_catalog(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace("tensorboard==2.21.0", "tensorboard==2.20.0"))
    assert stackctl("lock", "--check").returncode == 2

    done = stackctl("lock", "pytorch", "--variant", "cpu")
    assert done.returncode == 0, done.stderr
    pins = {pin.name: pin for pin in lockfile.parse((root / "images/locks/pytorch-cpu.txt").read_text())}
    assert pins["tensorboard"].version == "2.20.0"
    assert all(pin.hashes for pin in pins.values())
    assert "torch" not in pins
    (torch,) = lockfile.parse((root / "images/locks/pytorch-cpu.framework.txt").read_text())
    assert (torch.name, torch.version) == ("torch", "2.13.0+cpu")
    assert "://" not in (root / "images/locks/pytorch-cpu.txt").read_text(), "a lock holds no address"

    assert stackctl("render", "--check").returncode == 1, "the lock's digest is a label of the image"
    assert stackctl("render").returncode == 0
    assert stackctl("render", "--check").returncode == 0


@pytest.mark.needs("index")
def test_a_conflict_is_told_in_the_resolvers_words(copy: tuple[Path, Copy]) -> None:
    root, stackctl = copy
    catalog = root / "images" / "catalog.toml"
    catalog.write_text(catalog.read_text().replace('"tensorboard==2.21.0"', '"tensorboard==2.21.0", "numpy==1.20.0"'))
    before = (root / "images/locks/pytorch-cpu.txt").read_text()
    failed = stackctl("lock", "pytorch", "--variant", "cpu")
    assert failed.returncode == 1
    assert "images.pytorch.variants.cpu: no set of versions fits" in failed.stderr
    assert "numpy" in failed.stderr
    assert (root / "images/locks/pytorch-cpu.txt").read_text() == before
