from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stackrt.train import digits, report
from stackrt.train.errors import BadInputError, TrainerError


def options(out: Path, *words: str) -> digits.Options:
    return digits.parse(["--out", str(out), *words], "")


def test_the_shipped_pictures() -> None:
    pictures, labels, test_pictures, test_labels = digits.load()
    assert pictures.shape == (1536, 8, 8, 1)
    assert test_pictures.shape == (261, 8, 8, 1)
    assert (pictures.min(), pictures.max()) == (0.0, 1.0)
    assert np.bincount(labels).min() > 140
    assert set(test_labels) == set(range(10))


@pytest.mark.parametrize("step", [0, 1, 11, 12])
def test_any_number_of_ranks_computes_the_same_step(tmp_path: Path, step: int) -> None:
    o = options(tmp_path, "--batch-size", "96")
    whole = digits.batch(o, step, 0, 1, 1000)
    assert len(whole) == 96
    for world_size in (2, 4):
        parts = [digits.batch(o, step, rank, world_size, 1000) for rank in range(world_size)]
        assert {len(part) for part in parts} == {96 // world_size}
        assert sorted(np.concatenate(parts)) == sorted(whole)


def test_an_epoch_holds_every_picture_once_and_epochs_differ(tmp_path: Path) -> None:
    o = options(tmp_path, "--batch-size", "50")
    epochs = [np.concatenate([digits.batch(o, epoch * 4 + step, 0, 1, 200) for step in range(4)]) for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(200))
    assert list(epochs[0]) != list(epochs[1])
    other = options(tmp_path, "--batch-size", "50", "--seed", "1")
    assert list(digits.batch(other, 0, 0, 1, 200)) != list(epochs[0][:50])


@pytest.mark.parametrize("words", [["--steps", "0"], ["--batch-size", "-1"], ["--log-every", "0"], ["--lr", "0"]])
def test_a_number_out_of_range_is_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(BadInputError, match=words[0]):
        options(tmp_path, *words)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--batch-size 10: 4 ranks cannot share it evenly"):
        digits.batch(options(tmp_path, "--batch-size", "10"), 0, 0, 4, 200)


def test_rank_0_leaves_result_and_weights_and_the_others_nothing(tmp_path: Path) -> None:
    weights = {"b": np.ones(3, np.float32), "a": np.zeros((2, 2), np.float32)}
    for rank in (1, 0):
        out = tmp_path / str(rank)
        log = digits.Report(options(out, "--steps", "4"), "cnn", rank, 2)
        for step in range(1, 5):
            if log.due(step):
                log.add(step, 2.0 / step)
        log.finish(weights, 0.75)
    assert not (tmp_path / "1").exists()
    result = json.loads((tmp_path / "0" / "result.json").read_text())
    assert (result["workload"], result["steps"], result["world_size"], result["samples"]) == ("cnn", 4, 2, 512)
    assert (result["first_train_loss"], result["last_train_loss"], result["accuracy"]) == (2.0, 0.5, 0.75)
    assert result["samples_per_second"] > 0
    assert result["params_sha256"] == report.arrays_sha256(weights)
    assert [row["step"] for row in report.read_rows(tmp_path / "0" / "metrics.jsonl")] == [1, 4]
    with np.load(tmp_path / "0" / "weights.npz") as saved:
        assert {name: saved[name].tolist() for name in saved} == {name: w.tolist() for name, w in weights.items()}


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    log = digits.Report(options(tmp_path), "cnn", 1, 2)
    with pytest.raises(TrainerError, match="the training loss is nan at step 7"):
        log.add(7, float("nan"))


def test_the_digest_is_of_names_and_values() -> None:
    one = {"a": np.ones(2, np.float32)}
    assert report.arrays_sha256(one) == report.arrays_sha256({"a": np.ones(2, np.float32)})
    assert report.arrays_sha256(one) != report.arrays_sha256({"b": np.ones(2, np.float32)})
    assert report.arrays_sha256(one) != report.arrays_sha256({"a": np.zeros(2, np.float32)})
