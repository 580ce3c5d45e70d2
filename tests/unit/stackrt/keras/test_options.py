from __future__ import annotations

import pytest

from stackrt.keras.options import describe, parse, profile_window
from stackrt.train.errors import BadInputError


def test_the_defaults_train_digits() -> None:
    o = parse([])
    assert (o.data, o.model, o.epochs, o.resume) == ("digits", "cnn", 10, "auto")
    assert "predict" not in describe(o)
    assert isinstance(describe(o)["out"], str)


def test_to_predict_the_model_says_which_set() -> None:
    o = parse(["--predict", "3", "a.png"])
    assert (o.data, o.predict) == ("", ("3", "a.png"))


def test_a_profile_names_its_steps() -> None:
    assert profile_window("10:5") == (10, 14)
    assert profile_window("") == (0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "0"], "--epochs 0: must be 1 or more"),
        (["--devices", "-1"], "--devices -1: must be 0 or more"),
        (["--dropout", "1"], "--dropout 1.0: must be below 1"),
        (["--lr", "nan"], "--lr nan: must be above 0"),
        (["--seed", "4294967296"], "--seed 4294967296: must be below"),
        (["--profile", "0:5"], "--profile 0:5: must be FROM:STEPS"),
        (["--profile", "10:5", "--steps", "13"], "--profile 10:5: must be within the 13 steps"),
        (["--profile", "5"], "--profile 5: must be FROM:STEPS"),
        (["--strategy", "one", "--devices", "2"], "--devices 2: --strategy one has one device"),
        (["--strategy", "tpu", "--devices", "2"], "--devices 2: --strategy tpu takes all cores"),
        (["--load", "model.keras"], "--load: goes with --predict only"),
        (["--picture", "a.png"], "--picture: goes with --predict only"),
    ],
)
def test_what_cannot_work_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(BadInputError) as caught:
        parse(words)
    assert str(caught.value).startswith(said)
