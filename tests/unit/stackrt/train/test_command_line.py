"""What is looked at before a trainer imports anything slow."""

import sys
from pathlib import Path

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
    assert f"{sys.executable} has no no_torch, no_onnx; use the image, `make train-env` or `pip install " in said
    assert ended.value.code == BadInputError.exit_code


def test_a_wrong_option_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.check_early(refuse, [], ["no_torch"])
    assert "--steps 0" in capsys.readouterr().err


def test_the_shipped_text_of_a_run_is_the_one_of_here() -> None:
    """Whether it was trained in a container, from a wheel or in a checkout."""
    for place in ("/opt/stack", "/runs/a/.payload", "/home/me/stack/images"):
        assert command_line.text_of_run([f"{place}/stackrt/train/data/shakespeare.txt"]) == (command_line.DEFAULT_TEXT,)
    others = ("/data/shakespeare.txt", "/mine/train/data/shakespeare.txt")
    assert command_line.text_of_run(others) == tuple(map(Path, others))


def test_ranks_that_a_framework_does_not_know_of_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for started, size in (("", 1), ("1", 1), ("2", 2), ("", 4), ("x", 1)):  # horovodrun and mpirun say nothing
        monkeypatch.setenv("WORLD_SIZE", started)
        command_line.same_ranks(size, "Horovod")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInputError, match=r"2 ranks were started, and Horovod knows of one: .*--framework horovod"):
        command_line.same_ranks(1, "Horovod")
