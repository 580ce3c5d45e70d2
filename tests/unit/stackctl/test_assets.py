from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stackctl import assets


def test_a_checkout_is_its_own_build_context() -> None:
    assert assets.build_context() == assets.images_dir().parent


def test_an_installed_stackctl_gathers_what_a_build_reads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "stackctl"
    for name in ("build", "facts", "locks", "patches", "templates"):
        shutil.copytree(assets.images_dir() / name, package / "_assets" / "images" / name)
    shutil.copytree(assets.payload_dir() / "stackrt", package.parent / "stackrt")
    (package.parent / "stackrt" / "__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr(assets, "_PACKAGE", package)
    monkeypatch.setattr(assets, "_INSTALLED", package / "_assets" / "images")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    context = assets.build_context()
    assert {path.name for path in (context / "images").iterdir()} == {"build", "facts", "locks", "patches", "stackrt"}
    assert not list(context.rglob("__pycache__"))
    assert (context / "images/stackrt/train/data/shakespeare.txt").is_file()
    assert assets.build_context() == context

    (package.parent / "stackrt" / "new.py").touch()
    assert assets.build_context() != context
    assert {path.name for path in context.parent.iterdir()} == {context.name, assets.build_context().name}
