"""Folders that people name, and ranks share."""

import os
from pathlib import Path

import pytest

from stackrt.train.paths import make_writable, open_to_others


def test_what_another_rank_of_the_same_process_id_made_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks in containers of their own have equal process ids; a folder that they share is written by all at once."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    made: list[Path] = []
    opened = os.open

    def and_another_does_the_same(path: str, flags: int, *rest: int, **named: int) -> int:
        if not made:
            made.append(tmp_path)
            make_writable(tmp_path)
        return opened(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", and_another_does_the_same)
    make_writable(tmp_path)
    assert made
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(FileExistsError):
        make_writable(tmp_path / "out")


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600), (0o2775, 0o664)])
def test_a_file_is_open_to_whom_its_folder_is(folder: int, file: int, tmp_path: Path) -> None:
    tmp_path.chmod(folder)
    weights = tmp_path / "model.safetensors"
    weights.touch(mode=0o600)
    open_to_others([weights])
    assert weights.stat().st_mode & 0o777 == file
