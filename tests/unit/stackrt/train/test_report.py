"""Reports: rows that survive a cut, numbers that mean what they say."""

import errno
import hashlib
import json
import math
import os
import struct
import time
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - on a new machine it starts a process once, which a unit test may not
import pytest
import torch

from stackrt.train import report
from stackrt.train.errors import BadInputError, TrainerError


def test_a_loss_beyond_any_perplexity_has_none() -> None:
    assert report.perplexity(0) == 1
    assert report.perplexity(709.7) is not None
    assert report.perplexity(710) is None


def test_what_is_written_at_the_end_is_looked_at_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    report.prepare_folder(tmp_path / "out", export=str(tmp_path / "not" / "yet"), export_adapter="")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]
    with pytest.raises(BadInputError, match=r"--export-adapter .*below: not writable"):
        report.prepare_folder(tmp_path / "out", export_adapter=str(tmp_path / "file" / "below"))
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(tmp_path))  # root may write anywhere
    with pytest.raises(BadInputError, match=r"--export .*yet: not writable; choose another folder"):
        report.prepare_folder(tmp_path / "out", export=str(tmp_path / "not" / "yet"))


def test_params_sha256_is_names_and_fp32_bytes_in_name_order() -> None:
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3.0]], dtype=torch.bfloat16)}
    expected = hashlib.sha256(b"a" + struct.pack("<f", 3) + b"b" + struct.pack("<2f", 1, 2)).hexdigest()
    assert report.params_sha256(state) == expected
    assert report.params_sha256(dict(reversed(state.items()))) == expected
    assert report.params_sha256({**state, "b": torch.tensor([1.0, 2.0000002])}) != expected
    view = torch.tensor([[1.0, 9.0], [2.0, 9.0]])[:, 0]  # strided memory, same values
    assert report.params_sha256({**state, "b": view}) == expected


def test_rows_past_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    first = report.Metrics(tmp_path, -1)
    for step in (0, 5, 10):
        first.add({"step": step, "loss": 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 15, "lo')  # a kill in the middle of a write
    again = report.Metrics(tmp_path, 5)
    again.add({"step": 10, "loss": 2.0})
    again.sync()
    again.close()
    assert [(row["step"], row["loss"]) for row in report.read_rows(tmp_path / "metrics.jsonl")] == [
        (0, 1),
        (5, 1),
        (10, 2),
    ]
    report.Metrics(tmp_path, -1).close()
    assert report.read_rows(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("tail", ["", '{"step": 3', "null\n", '{"no": 1}\n', "\x00\x00"])
def test_a_damaged_tail_ends_the_rows(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + tail)
    assert [row["step"] for row in report.read_rows(path)] == [1, 2]
    assert report.read_rows(tmp_path / "absent") == []


def test_a_resume_tells_tensorboard_what_to_forget(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    for after, steps, loss in ((-1, (1, 5, 10, 15), 1.0), (5, (10,), 2.0)):
        metrics = report.Metrics(tmp_path, after)
        for step in steps:
            metrics.add({"step": step, "loss": loss})
        metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/train")] == [(1, 1), (5, 1), (10, 2)]


def test_throughput_leaves_out_warm_up_and_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 50.0, 60.0, 61.0, 161.0, 163.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    speed = report.Throughput(100, start=10)  # 0 s
    assert speed.mean is None
    speed.pause(13)  # 50 s: three slow steps
    assert speed.mean is None
    speed.go_on(13)  # 60 s
    speed.pause(15)  # 61 s: two steps in a second
    assert speed.recent == speed.mean == 200
    speed.go_on(15)  # 161 s: a long validation
    speed.pause(16)  # 163 s: one step in two seconds
    assert speed.recent == 50
    assert speed.mean == 100


def test_the_progress_line() -> None:
    row = {"step": 50, "loss": 2.7134, "val_loss": 2.684, "lr": 9.8e-4, "tokens_per_second": 31200.4, "grad_norm": 1.0}
    assert report.progress(row, 400, 41.2) == "step  50/400  loss 2.713  val 2.684  lr 9.8e-04  31,200 tok/s  eta 41 s"
    assert report.progress({"step": 0, "val_loss": 5.5}, 400, 0) == "step   0/400  val 5.500"


def test_a_result_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    report.write_result(path, {"steps": 1})
    assert json.loads(path.read_text()) == {"schema_version": 1, "steps": 1}
    report.write_result(path, {"steps": 1, "rows": [{"loss": math.nan, "most": (1.5, math.inf)}]})
    assert json.loads(path.read_text())["rows"] == [{"loss": None, "most": [1.5, None]}]

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainerError, match=r"result\.json: could not be written: No space left"):
        report.write_result(path, {"steps": 2})
    assert json.loads(path.read_text())["steps"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    rows: list[report.Row] = [
        {"step": 0, "val_loss": 5.0},
        {"step": 1, "loss": 4.0},
        {"step": 2, "loss": 3.0, "val_loss": 3.1},
    ]
    report.plot_loss(tmp_path / "loss.png", rows, 2.5, "title")
    header = (tmp_path / "loss.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (960, 540)
    with pytest.raises(TrainerError, match=r"loss\.png: could not be written: No such file"):
        report.plot_loss(tmp_path / "absent" / "loss.png", rows, 2.5, "title")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    report.prepare_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="File exists"):
        report.prepare_folder(tmp_path / "file")
