from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from stackrt.pictures import batches, options, trainer
from stackrt.pictures.data import Floats, Pictures, load
from stackrt.pictures.formats import Whole
from stackrt.pictures.log import Report
from stackrt.pictures.options import Options
from stackrt.pictures.trainer import State
from stackrt.train import report
from stackrt.train.errors import BadInputError, TrainerError


def read(out: Path, *words: str) -> Options:
    return options.read(["--out", str(out), *words], options.parser(""), Options)


@pytest.fixture(scope="module")
def digits() -> Pictures:
    return load("digits", Path("nowhere"))


class Plain:
    """Softmax regression with momentum, in numpy: all that the trainer asks of a framework."""

    rank, world_size, device = 0, 1, "cpu"

    def __init__(self, data: Pictures, stop_after: int = -1) -> None:
        self.weights = np.zeros((int(np.prod(data.shape)), len(data.classes)), np.float32)
        self.momentum = np.zeros_like(self.weights)
        self.left = stop_after
        self.last = 0.0

    def total(self, numbers: Whole) -> Whole:
        return numbers

    def step(self, pictures: Floats, labels: Whole, lr: float) -> None:
        inputs = pictures.reshape(len(pictures), -1)
        scores = np.exp(inputs @ self.weights)
        chances = scores / scores.sum(1, keepdims=True)
        self.last = float(-np.log(chances[np.arange(len(labels)), labels]).mean())
        chances[np.arange(len(labels)), labels] -= 1
        self.momentum = (0.9 * self.momentum + inputs.T @ chances / len(labels)).astype(np.float32)
        self.weights = (self.weights - lr * self.momentum).astype(np.float32)
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGTERM)

    def loss(self) -> float:
        return self.last

    def guesses(self, pictures: Floats) -> Whole:
        found: Whole = np.argmax(pictures.reshape(len(pictures), -1) @ self.weights, 1)
        return found

    def state(self) -> State:
        return State({"weights": self.weights}, {"momentum": self.momentum})

    def restore(self, state: State) -> None:
        self.weights, self.momentum = state.weights["weights"], np.asarray(state.optimizer["momentum"])


def train(out: Path, data: Pictures, *words: str, stop_after: int = -1) -> int:
    return trainer.train(read(out, *words), "plain", Plain(data, stop_after), data)


def result(out: Path) -> dict[str, object]:
    said: dict[str, object] = json.loads((out / "result.json").read_text())
    return said


@pytest.mark.parametrize("step", [0, 1, 11, 12])
def test_any_number_of_ranks_computes_the_same_step(tmp_path: Path, step: int) -> None:
    o = read(tmp_path, "--batch-size", "96")
    whole = batches.batch(o, step, 0, 1, 1000)
    assert len(whole) == 96
    for world_size in (2, 4):
        parts = [batches.batch(o, step, rank, world_size, 1000) for rank in range(world_size)]
        assert {len(part) for part in parts} == {96 // world_size}
        assert sorted(np.concatenate(parts)) == sorted(whole)


def test_an_epoch_holds_every_picture_once_and_epochs_differ(tmp_path: Path) -> None:
    o = read(tmp_path, "--batch-size", "50")
    epochs = [np.concatenate([batches.batch(o, epoch * 4 + step, 0, 1, 200) for step in range(4)]) for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(200))
    assert list(epochs[0]) != list(epochs[1])
    other = read(tmp_path, "--batch-size", "50", "--seed", "1")
    assert list(batches.batch(other, 0, 0, 1, 200)) != list(epochs[0][:50])


@pytest.mark.parametrize(
    "words", [["--steps", "0"], ["--batch-size", "-1"], ["--log-every", "0"], ["--lr", "0"], ["--seed", "-1"]]
)
def test_a_number_out_of_range_is_refused(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(BadInputError, match=words[0]):
        read(tmp_path, *words)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--batch-size 10: 4 ranks cannot share it evenly"):
        batches.batch(read(tmp_path, "--batch-size", "10"), 0, 0, 4, 200)
    with pytest.raises(BadInputError, match="--batch-size 202: there are 200 pictures to train on"):
        batches.batch(read(tmp_path, "--batch-size", "202"), 0, 0, 2, 200)


def test_the_rate_falls_along_half_a_cosine(tmp_path: Path) -> None:
    o = read(tmp_path, "--schedule", "cosine", "--lr", "0.2", "--steps", "10")
    assert [round(batches.learning_rate(o, step), 3) for step in (0, 5, 9)] == [0.2, 0.1, 0.005]
    assert batches.learning_rate(read(tmp_path), 100) == 0.05


def test_a_run_leaves_result_weights_and_a_checkpoint(tmp_path: Path, digits: Pictures) -> None:
    assert train(tmp_path, digits, "--steps", "60", "--eval-every", "30") == 0
    said = result(tmp_path)
    assert (said["workload"], said["steps"], said["world_size"], said["samples"]) == ("plain", 60, 1, 60 * 128)
    assert (said["data"], said["data_sha256"]) == ("digits", digits.digest)
    assert isinstance(said["accuracy"], float)
    assert said["accuracy"] > 0.6
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000060.npz"]
    rows = report.read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 20, 30, 40, 60]
    assert ["val_accuracy" in row for row in rows] == [False, False, True, False, True]
    with np.load(tmp_path / "weights.npz") as saved:
        assert said["params_sha256"] == report.arrays_sha256({name: saved[name] for name in saved})


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path: Path, digits: Pictures) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(one, digits, "--steps", "40") == 0
    assert train(two, digits, "--steps", "40", stop_after=17) == 128 + signal.SIGTERM
    assert not (two / "result.json").exists()
    assert train(two, digits, "--steps", "40") == 0
    unbroken, resumed = result(one), result(two)
    assert resumed["resumed_from"] == str(two / "checkpoints" / "step-000017.npz")
    for name in ("params_sha256", "first_train_loss", "last_train_loss", "accuracy"):
        assert resumed[name] == unbroken[name]
    steps = [[row["step"] for row in report.read_rows(out / "metrics.jsonl")] for out in (one, two)]
    assert steps[0] == steps[1]


def test_a_damaged_checkpoint_is_passed_over_by_name(
    tmp_path: Path, digits: Pictures, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, digits, "--steps", "20", "--checkpoint-every", "10") == 0
    path = tmp_path / "checkpoints" / "step-000020.npz"
    path.write_bytes(path.read_bytes()[:-200])
    (tmp_path / "result.json").unlink()
    assert train(tmp_path, digits, "--steps", "20") == 0
    assert f"checkpoint {path} refused" in capsys.readouterr().out
    assert str(result(tmp_path)["resumed_from"]).endswith("step-000010.npz")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, digits: Pictures) -> None:
    assert train(tmp_path, digits, "--steps", "10") == 0
    with pytest.raises(BadInputError, match="--batch-size was 128, is 64"):
        train(tmp_path, digits, "--steps", "10", "--batch-size", "64")
    other = Pictures("digits", digits.train, digits.test, digits.test, digits.classes, 16, "f" * 64)
    with pytest.raises(BadInputError, match="the data set was digits"):
        train(tmp_path, other, "--steps", "10")
    with pytest.raises(BadInputError, match=r"--steps 5: .*step-000010.npz is of step 10 already"):
        train(tmp_path, digits, "--steps", "5")
    assert train(tmp_path, digits, "--steps", "10", "--batch-size", "64", "--resume", "none") == 0


def test_keep_bounds_the_checkpoints(tmp_path: Path, digits: Pictures) -> None:
    assert train(tmp_path, digits, "--steps", "20", "--checkpoint-every", "5", "--keep", "3") == 0
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000010.npz", "step-000015.npz", "step-000020.npz"]


def test_other_ranks_leave_nothing(tmp_path: Path, digits: Pictures) -> None:
    out = tmp_path / "other"
    log = Report(read(out, "--steps", "4"), "cnn", 1, 2)
    log.begin(digits, 0, {})
    log.add(1, 2.0)
    log.finish({"a": np.ones(3, np.float32)}, 0.75)
    assert not out.exists()


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    log = Report(read(tmp_path), "cnn", 1, 2)
    with pytest.raises(TrainerError, match="the training loss is nan at step 7"):
        log.add(7, float("nan"))


def test_bytes_travel_whole_through_sums(digits: Pictures) -> None:
    content = bytes(range(256)) * 5 + b"end"
    assert trainer.from_first(Plain(digits), content) == content
    assert trainer.from_first(Plain(digits), b"") == b""


def test_the_digest_is_of_names_and_values() -> None:
    one = {"a": np.ones(2, np.float32)}
    assert report.arrays_sha256(one) == report.arrays_sha256({"a": np.ones(2, np.float32)})
    assert report.arrays_sha256(one) != report.arrays_sha256({"b": np.ones(2, np.float32)})
    assert report.arrays_sha256(one) != report.arrays_sha256({"a": np.zeros(2, np.float32)})
