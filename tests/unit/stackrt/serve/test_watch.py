"""Where several workers count together."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stackrt.serve import watch
from stackrt.train.errors import TrainerError


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Memory and temporary files, as folders of the test's own."""
    found = {name: tmp_path / name for name in ("memory", "temporary")}
    for folder in found.values():
        folder.mkdir()
    monkeypatch.setattr(watch, "MEMORY", str(found["memory"]))
    monkeypatch.setattr("tempfile.tempdir", str(found["temporary"]))
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return found


def test_one_worker_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/another/program/s")
    with watch.shared(1) as folder:
        assert folder == ""
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_several_count_in_memory_and_leave_nothing(places: dict[str, Path]) -> None:
    with watch.shared(2) as folder:
        assert Path(folder).parent == places["memory"]
        watch.join(folder)
        assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == folder
        sizes = {file.name: file.stat().st_size for file in Path(folder).iterdir()}
        assert sizes == dict.fromkeys((f"{name}_{os.getpid()}.db" for name in watch.FILES), watch.FILE_BYTES)
    assert not list(places["memory"].iterdir())


def test_what_a_killed_server_left_goes_and_what_another_uses_stays(places: dict[str, Path]) -> None:
    with watch.shared(2) as used:
        left, new = (places["memory"] / f"{watch.PREFIX}{name}" for name in ("left", "new"))
        for folder in (left, new):
            folder.mkdir()
            (folder / "counter_7.db").touch()
        for folder in (left, Path(used)):
            os.utime(folder, (0, 0))
        with watch.shared(2) as mine:
            assert {path.name for path in places["memory"].iterdir()} == {Path(used).name, Path(mine).name, new.name}


@pytest.mark.parametrize("lack", ["absent", "small"])
def test_without_room_there_they_count_among_temporary_files(
    lack: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if lack == "absent":
        places["memory"].rmdir()
    else:
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 9, 9, 9, 0, 0, 0, 0, 255)))
    with watch.shared(2) as folder:
        assert Path(folder).parent == places["temporary"]


def test_a_full_disk_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with watch.shared(2) as folder:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(TrainerError, match="has no room for what several workers count: No space left on device"):
            watch.join(folder)
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
