"""Other kinds of models and numbers than the plain Llama in fp32: Qwen over tensor-parallel ranks, and bf16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.train import lm
from tests.integration.train.test_launched import ends, launch
from tests.integration.train.test_lm import apart
from tests.support.ports import free_port
from tests.support.trainers import Trainers

pytestmark = pytest.mark.needs("torch")

SHORT = ["--steps", "10", "--checkpoint-every", "5"]


def test_a_qwen_whose_heads_have_norms_is_split_over_ranks(trainers: Trainers, tmp_path: Path) -> None:
    """Its norms of queries and keys are on each tensor-parallel rank for that rank's heads alone."""
    folder = tmp_path / "qwen"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(lm.config() | {"model_type": "qwen3", "head_dim": 8}))
    qwen = "stackrt.train.lm transformers.models.qwen3.modeling_qwen3"
    for name, ranks, mesh in (
        ("one", 1, []),
        ("tp", 2, ["--tp", "2"]),
        ("both", 4, ["--tp", "2", "--ac", "selective"]),
    ):
        argv = [*lm.SETTINGS, *SHORT, *mesh, "--model", str(folder), "--out", str(tmp_path / name)]
        argv += ["--export", str(tmp_path / name / "export")]
        lm.run(trainers, ranks, argv, tmp_path / f"{name}.logs", TEST_PROGRAM=qwen)
        assert lm.result(tmp_path / name)["last_val_loss"] < lm.result(tmp_path / name)["first_val_loss"] - 0.05
        assert apart(tmp_path / name / "export", tmp_path / "one" / "export") < 1e-5


@pytest.mark.parametrize("mesh", [[], ["--tp", "2"]], ids=["fsdp", "tp"])
def test_bf16_learns_as_fp32_does_and_goes_on_bit_equal(trainers: Trainers, tmp_path: Path, mesh: list[str]) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(lm.config()))
    argv = [*lm.SETTINGS, *SHORT, *mesh, "--model", str(folder)]
    for dtype in ("fp32", "bf16"):
        lm.run(trainers, 2, [*argv, "--dtype", dtype, "--out", str(tmp_path / dtype)], tmp_path / f"{dtype}.logs")
    exact, rounded = lm.result(tmp_path / "fp32"), lm.result(tmp_path / "bf16")
    assert rounded["first_val_loss"] - rounded["last_val_loss"] > 0.05
    assert rounded["last_val_loss"] == pytest.approx(exact["last_val_loss"], rel=0.01)
    assert rounded["params_sha256"] != exact["params_sha256"]
    assert rounded["share_bytes"] == exact["share_bytes"]  # weights and moments stay fp32
    start = str(tmp_path / "bf16" / "checkpoints" / "step-000005")
    lm.run(
        trainers, 2, [*argv, "--dtype", "bf16", "--out", str(tmp_path / "on"), "--resume", start], tmp_path / "on.logs"
    )
    assert lm.result(tmp_path / "on")["params_sha256"] == rounded["params_sha256"]


@pytest.mark.needs("compiler")
@pytest.mark.timeout(400)
def test_compiled_blocks_compute_what_others_do(trainers: Trainers, tmp_path: Path) -> None:
    """Without a compiler it is one line, before the model is built."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(lm.config(num_hidden_layers=1)))
    argv = [*lm.SETTINGS, "--steps", "6", "--model", str(folder)]
    plain = ["--out", str(tmp_path / "plain"), "--export", str(tmp_path / "plain" / "export")]
    lm.run(trainers, 2, [*argv, *plain], tmp_path / "plain.logs")
    # Not forked: there warnings are errors, also those that the compiler meets and hides.
    words = [*argv, "--compile", "--export", str(tmp_path / "compiled" / "export")]
    codes, output = ends(launch(1, 2, free_port(), tmp_path / "compiled", "lm", words))
    assert codes == [0], output
    assert "arning" not in output
    assert lm.result(tmp_path / "compiled")["options"]["compile"] is True
    assert lm.result(tmp_path / "compiled")["params_sha256"] != lm.result(tmp_path / "plain")["params_sha256"]
    assert apart(tmp_path / "compiled" / "export", tmp_path / "plain" / "export") < 1e-5

    argv += ["--compile", "--out", str(tmp_path / "none")]
    ranks = lm.start(trainers, 2, argv, tmp_path / "none.logs", CXX="no-such-compiler")
    assert [rank.wait() for rank in ranks] == [78, 78]
    (line,) = ranks[0].output.splitlines()
    assert line.startswith("error: --compile: there is no no-such-compiler here, which torch.compile calls; install it")
    assert not (tmp_path / "none").exists()
