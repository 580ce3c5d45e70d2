"""The folder that images are built from."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stackctl import assets
from stackctl.errors import MissingHere
from stackctl.images.context import build_context


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed stackctl, by somebody whose files nobody else can read."""
    found = tmp_path / "site-packages" / "stackctl"
    before = os.umask(0o077)
    for name in ("build", "facts", "locks", "patches", "templates"):
        shutil.copytree(assets.images_dir() / name, found / "_assets" / "images" / name)
    payload = shutil.copytree(assets.payload_dir() / "stackrt", found.parent / "stackrt")
    for path in payload.rglob("*.py"):
        path.chmod(0o600)
    (found.parent / "stackrt" / "__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr(assets, "_PACKAGE", found)
    monkeypatch.setattr(assets, "_INSTALLED", found / "_assets" / "images")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield found
    os.umask(before)


def test_a_checkout_is_its_own_build_context() -> None:
    assert build_context() == assets.images_dir().parent


def test_an_installed_stackctl_gathers_what_a_build_reads_once(package: Path) -> None:
    context = build_context()
    assert {path.name for path in (context / "images").iterdir()} == {"build", "facts", "locks", "patches", "stackrt"}
    assert not list(context.rglob("__pycache__"))
    assert (context / "images/stackrt/train/data/shakespeare.txt").is_file()
    assert build_context() == context

    (package.parent / "stackrt" / "new.py").touch()
    assert build_context() != context
    assert {path.name for path in context.parent.iterdir()} == {context.name, build_context().name}


def test_the_user_of_an_image_may_read_it_whatever_the_umask_was(package: Path) -> None:
    images = build_context() / "images"
    modes = {path.stat().st_mode & 0o777 for path in images.rglob("*.py")}
    assert modes == {0o644}
    assert {path.stat().st_mode & 0o777 for path in images.rglob("*") if path.is_dir()} == {0o755}


def test_builds_that_begin_together_build_from_the_same_folder(package: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: build_context(), range(4)))) == 1
    assert [path.name for path in build_context().parent.iterdir()] == [build_context().name]


def test_what_is_missing_there_is_put_back_and_what_a_killed_build_left_goes(package: Path) -> None:
    context = build_context()
    (context / "images/stackrt/contract.py").unlink()
    left, others = (context.with_name(f"{context.name}.{name}") for name in ("left", "others"))
    for folder in (left, others):
        folder.mkdir()
    os.utime(left, (0, 0))
    assert build_context() == context
    assert (context / "images/stackrt/contract.py").is_file()
    assert {path.name for path in context.parent.iterdir()} == {context.name, others.name}


def test_a_full_disk_is_one_sentence(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(MissingHere, match="cannot be gathered here: No space left on device") as error:
        build_context()
    assert "XDG_CACHE_HOME" in error.value.hint
    assert not list(Path(error.value.where).iterdir())
