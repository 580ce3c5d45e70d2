"""Options of compressing and exporting Keras models, read without TensorFlow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackrt.compress import picture_options as compress
from stackrt.export import picture_options as export
from stackrt.train.errors import BadInputError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (tmp_path / "result.json").write_text(json.dumps({"workload": "keras"}))
    return tmp_path


def test_each_method_and_format_once(run: Path) -> None:
    assert compress.parse(["--model", str(run), "--method", "fp16", "int8", "fp16"]).method == ("fp16", "int8")
    assert export.parse(["--model", str(run), "--to", "tflite", "tflite"]).to == ("tflite",)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--version", "0"], "--version 0: must be 1 or more"),
        (["--name", "../up"], "--name ../up: may have letters"),
        (["--verify", "3"], "--verify 3: must be 0"),
        (["--tolerance", "nan"], "--tolerance nan"),
    ],
)
def test_what_export_refuses(run: Path, argv: list[str], told: str) -> None:
    with pytest.raises(BadInputError) as refused:
        export.parse(["--model", str(run), *argv])
    assert told in str(refused.value)


def test_what_compress_refuses(run: Path) -> None:
    with pytest.raises(BadInputError, match="--calibration 0: must be 1 or more"):
        compress.parse(["--model", str(run), "--calibration", "0"])
    with pytest.raises(BadInputError, match="there is no such folder"):
        compress.parse(["--model", str(run / "none")])


def test_what_is_written_does_not_replace_the_model(run: Path) -> None:
    for parse in (compress.parse, export.parse):
        with pytest.raises(BadInputError, match="is the model's own folder"):
            parse(["--model", str(run), "--out", str(run)])
