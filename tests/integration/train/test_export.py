"""A trained gpt in other programs' formats: it computes the same there, in batches of any size and length."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import families
from tests.support.served import language_model
from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

PROGRAM = "stackrt.export.__main__"


def test_onnx_and_pt2_compute_what_the_original_does(trainers: Trainers, teacher: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    out = tmp_path / "out"
    argv = ["--model", str(teacher), "--out", str(out), "--to", "onnx", "pt2", "safetensors"]
    process = trainers.start(argv, tmp_path / "log", TEST_PROGRAM=PROGRAM)
    assert process.wait(600) == 0, process.output
    print(process.output)
    result = json.loads((out / "result.json").read_text())
    for row in result["formats"].values():
        assert row["difference"] <= 1e-4
        assert (row["inputs"], row["batches"]) == (100, [1, 8])
    assert "arning" not in process.output
    assert (out / "safetensors" / "tokenizer.json").is_file()
    assert len({path.stat().st_mode for path in (out / "safetensors").iterdir()}) == 1

    process = trainers.start([*argv[:4], "--tolerance", "1e-12"], tmp_path / "log2", TEST_PROGRAM=PROGRAM)
    assert process.wait(600) == 1
    assert "model.onnx computes something else: a logit differs by" in process.output

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(out / "safetensors", dtype=torch.bfloat16).save_pretrained(half)
    shutil.copy(out / "safetensors" / "tokenizer.json", half)
    argv = ["--model", str(half), "--out", str(tmp_path / "of-half"), "--to", "onnx", "safetensors", "--verify", "4"]
    process = trainers.start(argv, tmp_path / "log3", TEST_PROGRAM=PROGRAM)
    assert process.wait(600) == 0, process.output
    onnx, hf = json.loads((tmp_path / "of-half" / "result.json").read_text())["formats"].values()
    assert onnx["bytes"] > 1.8 * hf["bytes"]


def test_experts_leave_in_operators_that_all_have(trainers: Trainers, tmp_path: Path) -> None:
    """transformers computes them with an operator of its own, which neither ONNX nor a bare torch knows."""
    import torch

    model = tmp_path / "model"
    families.made("qwen3_moe").save_pretrained(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(language_model(tmp_path / "words") / name, model)
    argv = ["--model", str(model), "--out", str(tmp_path / "out"), "--to", "onnx", "pt2", "--verify", "2"]
    process = trainers.start([*argv, "--context", "32"], tmp_path / "log", TEST_PROGRAM=PROGRAM)
    assert process.wait(600) == 0, process.output
    rows = json.loads((tmp_path / "out" / "result.json").read_text())["formats"]
    assert max(row["difference"] for row in rows.values()) <= 1e-4
    program = torch.export.load(tmp_path / "out" / "model.pt2")
    assert not [node for node in program.graph.nodes if "transformers" in str(node.target)]


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    import torch

    from stackrt.export import formats
    from stackrt.train.errors import BadInputError

    class Strange(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = torch.special.bessel_j0(input_ids.float())
            return values

    with pytest.raises(BadInputError, match=r"--to onnx: ONNX has no operator for prims\.bessel_j0, .*pt2"):
        formats.write_onnx(Strange(), tmp_path / "model.onnx", 16)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from stackrt.finished import quantized

    with pytest.raises(OSError, match="No such file") as error, quantized.saving(tmp_path):
        save_file({"a": torch.zeros(1)}, tmp_path / "none" / "a.safetensors")
    assert error.value.strerror
