"""Horovod's options, without Horovod: what is refused before and after the ranks have met."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stackrt.pictures import options
from stackrt.train import horovod_run
from stackrt.train.errors import BadInputError, PeersGoneError
from stackrt.train.horovod_run import HorovodOptions


def parse(out: Path, *words: str) -> HorovodOptions:
    parser = options.parser("")
    horovod_run.add_options(parser)
    return options.read(["--out", str(out), *words], parser, HorovodOptions)


def run(o: HorovodOptions, make: Any) -> int:
    hvd = cast("Any", SimpleNamespace(init=lambda: None, mpi_enabled=lambda: False, size=lambda: 1))
    return horovod_run.run(hvd, "horovod-torch", make, (ConnectionError,), o)


def test_by_default_nothing_is_compressed_or_accumulated(tmp_path: Path) -> None:
    o = parse(tmp_path)
    assert (o.compression, o.accumulate, o.adasum, o.timeline) == ("none", 1, False, False)


@pytest.mark.parametrize(
    ("words", "world_size", "told"),
    [
        (["--accumulate", "0"], 1, "--accumulate 0: must be at least 1"),
        (["--batch-size", "12", "--accumulate", "4"], 2, "--batch-size 12: 2 ranks with --accumulate 4 .* of 8"),
    ],
)
def test_passes_of_unequal_size_are_refused(tmp_path: Path, words: list[str], world_size: int, told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        horovod_run.check(parse(tmp_path, *words), world_size)


def test_adasum_without_mpi_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--adasum: wants ranks that mpirun has started"):
        run(parse(tmp_path, "--adasum"), None)


def test_a_rank_that_is_left_alone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOROVOD_ELASTIC", raising=False)

    def make(*_: object) -> None:
        raise ConnectionError("peer closed the connection\nand more")

    with pytest.raises(PeersGoneError, match=r"another rank is gone: peer closed the connection$"):
        run(parse(tmp_path), make)


def test_the_timeline_is_named_before_horovod_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_TIMELINE", "")
    with pytest.raises(BadInputError):
        run(parse(tmp_path / "out", "--timeline", "--adasum"), None)
    assert os.environ["HOROVOD_TIMELINE"] == str(tmp_path / "out" / "timeline.json")
    assert (tmp_path / "out").is_dir()
