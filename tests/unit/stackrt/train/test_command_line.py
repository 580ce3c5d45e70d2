"""What is looked at before a trainer imports anything slow."""

import sys

import pytest

from stackrt.train import command_line
from stackrt.train.errors import BadInputError


def refuse(argv: object) -> None:
    raise BadInputError("--steps 0: must be 1 or more")


def test_packages_that_are_not_there_are_named_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    command_line.check_early(lambda argv: None, [], ["json"])
    with pytest.raises(SystemExit) as ended:
        command_line.check_early(lambda argv: None, [], ["json", "no_torch", "no_onnx"])
    said = capsys.readouterr().err
    assert f"{sys.executable} has no no_torch, no_onnx; use the image, or `make train-env` in a checkout" in said
    assert ended.value.code == BadInputError.exit_code


def test_a_wrong_option_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.check_early(refuse, [], ["no_torch"])
    assert "--steps 0" in capsys.readouterr().err
