"""What of `compress` and `export` needs no torch: options, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackrt.compress import options, table
from stackrt.export import options as export_options
from stackrt.train.errors import BadInputError


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("STACK_OUT", raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished gpt, as far as options look at it."""
    made = {"workload": "gpt", "options": {"data": ["my.txt"], "val_fraction": 0.1, "context": 48, "eval_tokens": 960}}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(made))
    return folder


def test_the_text_is_the_runs_own_unless_it_is_given(run: Path) -> None:
    o = options.parse(["--model", str(run), "--eval-tokens", "480"])
    assert (o.data, o.val_fraction, o.context, o.eval_tokens) == ((Path("my.txt"),), 0.1, 48, 480)
    assert options.parse(["--model", str(run), "--data", "other.txt"]).data == (Path("other.txt"),)
    assert export_options.parse(["--model", str(run)]).context == 48


def test_a_method_has_steps_of_its_own(run: Path) -> None:
    o = options.parse(["--model", str(run), "--method", "prune", "distill", "prune"])
    assert o.method == ("prune", "distill")
    assert options.training(o, "prune").steps < options.training(o, "distill").steps
    assert options.training(options.parse(["--model", str(run), "--steps", "7"]), "qat").steps == 7


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--amount", "1.0"], "--amount 1.0: must be more than 0 and less than 1: a model without weights"),
        (["--amount", "nan"], "--amount nan"),
        (["--method", "distill", "--temperature", "0"], "--temperature 0.0: must be more than 0"),
        (["--method", "distill", "--mix", "1.1"], "--mix 1.1"),
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--student-layers", "2"], "--student-layers: is of --method distill"),
        (["--eval-tokens", "0"], "--eval-tokens 0"),
    ],
)
def test_what_cannot_work_is_said(run: Path, argv: list[str], told: str) -> None:
    with pytest.raises(BadInputError) as refused:
        options.parse(["--model", str(run), *argv])
    assert told in str(refused.value)


def test_pictures_and_several_ranks_are_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.keras").touch()
    for parse, other in ((options.parse, "compress-keras"), (export_options.parse, "export-keras")):
        with pytest.raises(BadInputError, match=f"use `stackctl run {other}`"):
            parse(["--model", str(tmp_path / "model.keras")])
        with monkeypatch.context() as patch:
            patch.setenv("WORLD_SIZE", "2")
            with pytest.raises(BadInputError, match="is one process"):
                parse(["--model", str(run)])


def test_what_is_written_does_not_replace_the_model(run: Path, tmp_path: Path) -> None:
    for parse in (options.parse, export_options.parse):
        with pytest.raises(BadInputError, match="is the model's own folder"):
            parse(["--model", str(run), "--out", str(run / ".." / run.name)])
    for name, parse, argv in (
        ("original", options.parse, ["--method", "int8"]),
        ("prune", options.parse, ["--method", "int8", "prune"]),
        ("safetensors", export_options.parse, ["--to", "onnx", "safetensors"]),
    ):
        export = tmp_path / "out" / name
        export.mkdir(parents=True)
        (export / "config.json").write_text("{}")
        with pytest.raises(BadInputError, match=f"the model is in it, as {name}, and would be replaced"):
            parse(["--model", str(export), "--out", str(tmp_path / "out"), *argv])
    assert options.parse(["--model", str(tmp_path / "out" / "prune"), "--out", str(tmp_path / "out")]).method == (
        "int8",
    )


def test_tensorrt_says_how_to_get_it(run: Path) -> None:
    with pytest.raises(BadInputError, match=r"pip install --extra-index-url https://pypi\.nvidia\.com tensorrt"):
        export_options.parse(["--model", str(run), "--to", "tensorrt"])


def test_the_table_shows_size_and_loss_beside_the_originals() -> None:
    latency = {size: {"p50": 1.5, "p99": 20.0} for size in ("1", "32")}
    common: dict[str, Any] = {"parameters": 1000, "latency_ms": latency}
    rows = table.changes({
        "original": {"bytes": 4_000_000, "nonzero": 1000, "loss": 2.0, **common},
        "int8": {"bytes": 1_000_000, "nonzero": 990, "loss": 2.01, **common},
    })  # fmt: skip
    head, first, second = table.lines(rows)
    assert head.split()[:3] == ["model", "size", "of"]
    assert first.split()[:4] == ["original", "4.00", "MB", "1.00"]
    assert second.split()[3:8] == ["0.25", "1,000", "99%", "2.0100", "+0.50%"]
    assert len({len(line) for line in (head, first, second)}) == 1
