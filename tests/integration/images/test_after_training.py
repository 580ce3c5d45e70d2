"""A Keras model made smaller by TFLite, and exported, in its image: what it costs, and what cannot work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import in_image

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(1800)]

SCRIPTS = Path(__file__).parent / "after"
METHODS = ["tflite", "fp16", "int8-dynamic", "int8"]


def test_a_keras_model_is_smaller_and_as_good(built: Callable[[str], str], tmp_path: Path) -> None:
    output = in_image(built("tensorflow"), tmp_path, "python", "/workspace/after.py", scripts=SCRIPTS)
    print(output)
    result = json.loads((tmp_path / "small" / "result.json").read_text())
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in result["models"]}
    assert list(rows) == ["original", *METHODS]
    original = rows["original"]
    assert original["accuracy"] > 0.85
    for name in METHODS:
        assert rows[name]["accuracy"] >= 0.99 * original["accuracy"]
        assert rows[name]["latency_ms"]["32"]["p99"] > 0
    for name in ("int8", "int8-dynamic"):
        assert rows[name]["bytes"] <= 0.35 * rows["tflite"]["bytes"]
        assert rows[name]["size_ratio"] <= 0.35

    formats = json.loads((tmp_path / "exported" / "result.json").read_text())["formats"]
    assert (tmp_path / "exported" / "model" / "1" / "saved_model.pb").is_file()
    for row in formats.values():
        assert row["difference"] <= 1e-4
        assert (row["inputs"], row["batches"]) == (100, [1, 8])

    told = output.partition("refused\n")[2]
    for sentence, code in (
        ("damaged.keras: damaged.keras is damaged, or no file of Keras 3", 78),
        ("--data digits: its pictures are (8, 8, 1), and the model's are (16, 16, 1)", 78),
        ("--data: the model does not say what it was trained on", 78),
        ("(there must be pictures to measure and to calibrate with)", 78),
        ("is a run of gpt; name the folder of a keras run, or a .keras file", 78),
        ("nothing.keras: there is no such folder", 78),
        ("model.tflite computes something else: a score differs by", 1),
    ):
        assert sentence in told, told
        assert f"exit code {code}" in told.partition(sentence)[2].splitlines()[1], told
