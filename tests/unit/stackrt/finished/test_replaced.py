from __future__ import annotations

from pathlib import Path

import pytest

from stackrt.finished.replaced import replaced


def fill(place: Path, text: str, *, folder: bool) -> None:
    if folder:
        place.mkdir()
    (place / "weights" if folder else place).write_text(text)


def held(place: Path) -> str:
    return (place / "weights" if place.is_dir() else place).read_text()


def fails_halfway(place: Path, *, folder: bool) -> None:
    with replaced(place) as aside:
        fill(aside, "half", folder=folder)
        raise OSError("full")


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_there_stays_until_the_new_one_is_whole(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "out" / "model"
    with replaced(place) as aside:
        fill(aside, "first", folder=folder)
        assert not place.exists()
    with pytest.raises(OSError, match="full"):
        fails_halfway(place, folder=folder)
    assert held(place) == "first"
    with replaced(place) as aside:
        fill(aside, "second", folder=folder)
        assert held(place) == "first"
    assert held(place) == "second"
    assert list(place.parent.iterdir()) == [place]


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "model"
    fill(tmp_path / ".model.new", "half", folder=True)
    with replaced(place) as aside:
        fill(aside, "whole", folder=False)
    assert (held(place), list(tmp_path.iterdir())) == ("whole", [place])
