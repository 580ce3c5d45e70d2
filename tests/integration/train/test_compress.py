"""A trained gpt made smaller: what it costs, on real text; and what cannot be done is said."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

PROGRAM = "stackrt.compress.__main__"
METHODS = ["int8", "int8-dynamic", "int4", "qat", "bf16", "prune", "prune-structured"]


def compressed(trainers: Trainers, argv: list[str], log: Path) -> tuple[int | None, str]:
    process = trainers.start(argv, log, TEST_PROGRAM=PROGRAM)
    return process.wait(600), process.output


def test_the_table_of_what_each_method_costs(trainers: Trainers, teacher: Path, tmp_path: Path) -> None:
    from stackrt.finished import open_language_model

    out = tmp_path / "out"
    argv = ["--model", str(teacher), "--out", str(out), "--method", *METHODS, "--repeats", "10", "--steps", "60"]
    code, output = compressed(trainers, argv, tmp_path / "log")
    assert code == 0, output
    print(output)
    result = json.loads((out / "result.json").read_text())
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in result["models"]}
    assert list(rows) == ["original", *METHODS]
    assert json.loads((teacher / "result.json").read_text())["last_val_loss"] == pytest.approx(
        rows["original"]["loss"], abs=1e-4
    )
    for name, most in (("int8", 0.35), ("int8-dynamic", 0.35), ("int4", 0.22), ("qat", 0.22), ("bf16", 0.51)):
        assert rows[name]["size_ratio"] <= most, output
    for name in METHODS:
        assert rows[name]["loss_change"] <= 0.01, output  # within 1 % of fp32's, and better is no failure
        assert f"\n{name} " in output
    assert rows["qat"]["loss"] < rows["int4"]["loss"]
    original = rows["original"]["parameters"]
    assert {rows[name]["parameters"] for name in METHODS[:-1]} == {original}
    assert rows["prune-structured"]["parameters"] < 0.75 * original
    assert rows["prune"]["nonzero"] / original < 0.55
    for row in rows.values():
        assert row["latency_ms"]["1"]["p50"] <= row["latency_ms"]["1"]["p99"]
        assert row["latency_ms"]["32"]["p50"] > 0
    assert "arning" not in output

    pruned = open_language_model(out / "prune").model
    weight = dict(pruned.named_parameters())["transformer.h.0.mlp.c_fc.weight"]
    assert 1 - int(weight.count_nonzero()) / weight.numel() == pytest.approx(0.5, abs=0.01)

    code, output = compressed(trainers, ["--model", str(out)], tmp_path / "log2")
    assert code == 78
    assert "holds several models; name one of the folders in it: bf16, int4, int8" in output
    code, output = compressed(trainers, ["--model", str(out / "int8")], tmp_path / "log3")
    assert code == 78
    assert "is rounded to integers already; name the model it was made from" in output

    argv = ["--model", str(out / "bf16"), "--out", str(tmp_path / "again"), "--method", "int8", "--repeats", "1"]
    code, output = compressed(trainers, argv, tmp_path / "log4")
    assert code == 0, output
    again = {row["name"]: row for row in json.loads((tmp_path / "again" / "result.json").read_text())["models"]}
    assert again["original"]["bytes"] == rows["bf16"]["bytes"]
    assert again["int8"]["loss"] == pytest.approx(rows["int8"]["loss"], rel=0.01)


def test_a_student_learns_more_from_its_teacher_than_alone(teacher: Path) -> None:
    import torch

    from stackrt.compress import measure, options, tuning
    from stackrt.compress.__main__ import load_corpus
    from stackrt.finished import open_language_model
    from stackrt.train import text

    asked = options.parse(["--model", str(teacher), "--method", "distill", "--steps", "250", "--batch-size", "8"])
    opened = open_language_model(teacher)
    corpus = load_corpus(asked, opened)
    windows, held_out = corpus.windows(asked.context, 0), text.validation_windows(corpus.val, asked.context, 16384)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seed in range(3):
            o = options.training(replace(asked, seed=seed), "distill")
            taught, alone = (tuning.student_of(opened.config, o) for _ in range(2))
            tuning.see_that_smaller(taught, opened.model)
            tuning.distill(taught, opened.model, windows, o, print)
            tuning.train(alone, tuning.token_loss, windows, o, print)
            with_it, without = (measure.loss_of(model, *held_out) for model in (taught, alone))
            print(f"seed {seed}: student alone {without:.3f}, with its teacher {with_it:.3f}")
            assert with_it < 0.97 * without, seed
    finally:
        torch.set_num_threads(threads)


def test_a_model_of_another_kind_is_pruned_and_taught(trainers: Trainers, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    argv = ["--model", "llama-tiny", "--context", "16", "--steps", "2", "--batch-size", "2", "--eval-tokens", "320",
            "--out", str(run), "--export", str(run / "export")]  # fmt: skip
    process = trainers.start(argv, tmp_path / "log", TEST_PROGRAM="stackrt.train.lm")
    assert process.wait() == 0, process.output
    shutil.rmtree(run / "checkpoints")  # its export is enough
    methods = ["int8", "prune-structured", "distill"]
    argv = ["--model", str(run), "--out", str(out), "--method", *methods, "--steps", "2", "--batch-size", "2",
            "--repeats", "1", "--alone"]  # fmt: skip
    code, output = compressed(trainers, argv, tmp_path / "log2")
    assert code == 0, output
    names = [row["name"] for row in json.loads((out / "result.json").read_text())["models"]]
    assert names == ["original", *methods, "alone"]

    for argv, told in (
        (
            ["--method", "distill", "--student-layers", "9", "--student-width", "128"],
            "and its teacher .*give fewer layers, or less width",
        ),
        (["--method", "distill", "--student-width", "33", "--student-heads", "2"], "must divide --student-width .33."),
        (["--data", str(tmp_path / "gone.txt")], "gone.txt: No such file .*there must be text: name it"),
        (["--context", "9999"], "--context 9999: the model has 1,024 positions"),
        (["--out", str(run)], "is the model's own folder"),
    ):
        log = tmp_path / f"{argv[0]}{len(argv)}.log"
        code, output = compressed(trainers, ["--model", str(run), "--out", str(tmp_path / "bad"), *argv], log)
        assert code == 78, output
        assert output.splitlines()[-1].startswith("error: ")
        assert re.search(told, output), output
