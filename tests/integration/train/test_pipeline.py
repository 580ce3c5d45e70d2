"""The pipeline's stages compute what one process computes, and a stopped run goes on with other stages."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict
from transformers import AutoModelForCausalLM

from stackrt.train import mesh, pipeline_options, text
from stackrt.train.process import learning_rate
from tests.support.trainers import Trainers
from tests.support.waiting import until

pytestmark = pytest.mark.needs("torch")

PROGRAM = "stackrt.train.pipeline transformers.models.llama.modeling_llama"
SMALL = ["--layers", "4", "--context", "16", "--batch-size", "8", "--steps", "20", "--warmup", "5", "--lr", "1e-3",
         "--eval-tokens", "1000", "--clip", "0.5", "--checkpoint-every", "1", "--keep", "20"]  # fmt: skip
EVERYTHING = _EmptyStateDictLoadPlanner()  # type: ignore[no-untyped-call]
State = dict[str, dict[str, Tensor]]


def train(trainers: Trainers, ranks: int, out: Path, *more: str) -> str:
    """Train to the good end; returns what rank 0 printed."""
    processes = trainers.start_ranks(
        1, ranks, [*SMALL, "--out", str(out), *more], out.with_suffix(f".{ranks}.logs"), TEST_PROGRAM=PROGRAM
    )
    codes = [process.wait(240) for process in processes]
    assert codes == [0] * ranks, "\n".join(process.output for process in processes)
    return processes[0].output


def checkpoint(out: Path, step: int) -> State:
    """Weights and moments by name, of all ranks together."""
    state: State = {}
    reader = FileSystemReader(out / "checkpoints" / f"step-{step:06d}")
    _load_state_dict(state, storage_reader=reader, planner=EVERYTHING, no_dist=True)
    return state


@pytest.fixture(scope="module")
def one_process() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The first gradients and the last weights of a plain loop over transformers' own model, without stages."""
    o = pipeline_options.parse(SMALL)
    torch.set_num_threads(1)
    model = mesh.skeleton(pipeline_options.config_of(o), "the reference")
    for name in ["model.rotary_emb", "model.embed_tokens", "model.norm", "lm_head"]:
        mesh.first_values(model, name, model.get_submodule(name), o.seed, torch.device("cpu"))
    for number in range(o.layers):
        name = f"model.layers.{number}"
        mesh.first_values(model, name, model.get_submodule(name), o.seed, torch.device("cpu"))
    corpus = text.tokenize(text.read_text(o.data), text.ByteTokenizer(), o.val_fraction, o.context)
    windows = text.Windows(corpus.train, o.context, o.seed)
    groups = [{"params": [p for p in model.parameters() if (p.dim() >= 2) == matrix], "weight_decay": decay}
              for matrix, decay in ((True, o.weight_decay), (False, 0.0))]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=o.lr, betas=(0.9, 0.95), eps=1e-8)
    first: dict[str, Tensor] = {}
    for step in range(o.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, o)
        batch = windows.batch(step * o.batch_size, o.batch_size)
        loss = F.cross_entropy(model(input_ids=batch.inputs).logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), o.clip)
        first = first or {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.zero_grad()
    return first, {name: p.detach() for name, p in model.named_parameters()}


def test_stages_equal_one_process(
    trainers: Trainers, one_process: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    gradients, weights = one_process
    for ranks, schedule in ((2, "1f1b"), (2, "interleaved"), (4, "1f1b")):
        out = tmp_path / f"{ranks}-{schedule}"
        said = train(trainers, ranks, out, "--schedule", schedule, "--export", str(out / "export"))
        assert "bigram" in said
        first = checkpoint(out, 1)["exp_avg"]  # a tenth of the first gradients, as beta1 is 0.9
        assert first.keys() == gradients.keys()
        for name, held in first.items():
            torch.testing.assert_close(held * 10, gradients[name], atol=1e-6, rtol=0)
        for name, held in checkpoint(out, 20)["model"].items():
            torch.testing.assert_close(held, weights[name], atol=1e-5, rtol=0)
        result = json.loads((out / "result.json").read_text())
        assert (out / result["checkpoint"] / "COMMITTED").is_file()
        assert len(list((out / "export").glob("*.safetensors"))) == ranks
        exported = AutoModelForCausalLM.from_pretrained(result["export"])
        for name, tensor in exported.named_parameters():
            torch.testing.assert_close(tensor.detach(), weights[name], atol=1e-5, rtol=0)
    rows = [json.loads(line) for line in (tmp_path / "2-1f1b" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]


def test_a_stopped_run_goes_on_with_other_stages(
    trainers: Trainers, one_process: tuple[dict[str, Tensor], dict[str, Tensor]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ranks = trainers.start_ranks(1, 2, [*SMALL, "--out", str(out)], tmp_path / "logs", TEST_PROGRAM=PROGRAM)
    until((out / "checkpoints" / "step-000003" / "COMMITTED").exists, 120)
    ranks[1].kill(signal.SIGTERM)
    assert [rank.wait() for rank in ranks] == [143, 143], ranks[0].output
    assert "stopped by SIGTERM after step" in ranks[0].output
    assert "going on from" in train(trainers, 4, out)
    for name, held in checkpoint(out, 20)["model"].items():
        torch.testing.assert_close(held, one_process[1][name], atol=1e-5, rtol=0)
