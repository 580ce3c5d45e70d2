"""A model with experts over ranks: the same numbers on each mesh, its router's biases kept, published files again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.train import lm
from tests.integration.train.test_lm import apart
from tests.support import families
from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

PROGRAM = "stackrt.train.lm transformers.models.deepseek_v3.modeling_deepseek_v3"
BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


def test_experts_are_sharded_and_leave_as_they_came(trainers: Trainers, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = tmp_path / "base"
    families.made("deepseek_v3").save_pretrained(base)
    argv = [*lm.SETTINGS, "--steps", "6", "--checkpoint-every", "3", "--lr", "1e-4", "--model", str(base)]
    argv += ["--init", str(base)]
    outputs = {}
    start = str(tmp_path / "four" / "checkpoints" / "step-000003")
    for name, ranks, more in (("one", 1, []), ("four", 4, ["--ac", "selective"]), ("on", 4, ["--resume", start])):
        words = [*argv, *more, "--out", str(tmp_path / name), "--export", str(tmp_path / name / "export")]
        if name == "on":
            words += ["--ac", "selective"]
        outputs[name] = lm.run(trainers, ranks, words, tmp_path / f"{name}.logs", TEST_PROGRAM=PROGRAM)
    assert "parameters, of which " in outputs["four"]
    assert lm.result(tmp_path / "four")["last_val_loss"] < lm.result(tmp_path / "four")["first_val_loss"] - 0.001
    assert apart(tmp_path / "four" / "export", tmp_path / "one" / "export") < 1e-5
    assert apart(tmp_path / "on" / "export", tmp_path / "four" / "export") == 0
    found, given = (load_file(folder / "model.safetensors") for folder in (tmp_path / "on" / "export", base))
    assert found.keys() == given.keys()
    assert torch.equal(found[BIAS], given[BIAS])
