"""Parts of sharded training that need torch and no ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from stackrt.train import experts, exported, flops, mesh, models, profiling, ranks, samples, weights
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.lm_options import parse
from stackrt.train.text import Batch
from tests.support import families

pytestmark = pytest.mark.needs("torch")

# Millions of parameters, as published.
PUBLISHED = {"llama-1b": 1236, "llama-8b": 8030, "qwen-0.6b": 596, "qwen-8b": 8191, "gpt2": 124, "gpt2-xl": 1558}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_sizes_and_take_no_memory(name: str) -> None:
    model = mesh.skeleton(models.config_of(name), name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == PUBLISHED[name]
    assert all(p.is_meta for p in model.parameters())
    names = list(mesh.find_blocks(model, models.shape(models.config_of(name)).layers))
    assert len(set(names)) == models.shape(models.config_of(name)).layers


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "bert"}, "--model x: a token attends to those behind it there"),
        ({"model_type": "nosuch"}, "cannot make it a causal language model: Unrecognized model identifier: nosuch"),
    ],
)
def test_a_model_that_cannot_be_trained_to_predict_is_named_in_a_line(config: dict[str, Any], told: str) -> None:
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10}
    with pytest.raises(BadInputError) as caught:
        mesh.skeleton(shape | config, "--model x")
    assert told in str(caught.value)
    assert len(str(caught.value)) < 400
    mesh.skeleton(shape | {"model_type": "bert", "is_decoder": True}, "--model x")


def test_a_plan_for_tensor_parallel_is_the_model_s() -> None:
    o = parse(["--model", "llama-8b"])
    model = mesh.skeleton(models.config_of("llama-8b"), o.model)
    plan = mesh.tensor_plan(model, o)
    assert len(plan) == 32 * 7 + 1
    assert "lm_head" in plan
    tied = mesh.tensor_plan(mesh.skeleton(models.config_of("qwen-tiny"), "x"), o)
    assert "lm_head" not in tied
    assert type(tied["model.layers.0.self_attn.q_norm"]).__name__ == "SequenceParallel"


def test_every_held_out_window_counts_once_however_they_are_dealt() -> None:
    windows = Batch(torch.arange(7)[:, None], torch.arange(7)[:, None])
    for size, readers in ((1, 1), (2, 2), (3, 4)):
        parts = range(-(-7 // (size * readers)))
        seen = [
            int(row)
            for reader in range(readers)
            for part in parts
            for batch, counts in [samples.held_out_part(windows, part, size, reader, readers)]
            for row in batch.inputs[counts]
        ]
        assert sorted(seen) == list(range(7))


def one_rank() -> Any:
    return ranks.Ranks(0, 0, 1, torch.device("cpu"), None)  # type: ignore[arg-type]


def test_an_export_takes_an_earlier_one_s_place_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(rows: int, files: int = 1) -> None:
        held = [[f"layer{number}"] for number in range(files)]
        exported._write(tmp_path, held, 1, lambda _, names: dict.fromkeys(names, torch.ones(rows)), one_rank())

    export(3, files=2)
    (tmp_path / "adapter_config.json").write_text("{}")  # with it, from_pretrained would load another model
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(exported, "save_file", full_disk)
        with pytest.raises(TrainerError, match=r"model\.safetensors: could not be written: No space left"):
            export(4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == earlier
    (tmp_path / "another.safetensors").write_bytes(b"somebody's")
    export(4)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "another.safetensors"}


def full_disk(_: Any, path: str, **__: Any) -> None:
    Path(path).write_bytes(b"half")
    raise SafetensorError("No space left on device")


def test_weights_are_of_the_files_that_transformers_would_read(tmp_path: Path) -> None:
    """Not of those that an earlier save into other files has left behind."""
    model = torch.nn.Linear(2, 2)
    parts = {"model-00001-of-00002.safetensors": "bias", "model-00002-of-00002.safetensors": "weight"}
    for file, name in parts.items():
        save_file({name: torch.full(getattr(model, name).shape, 2.0)}, str(tmp_path / file))
    stale = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    save_file(stale, str(tmp_path / "model-00003-of-00003.safetensors"))
    index = {"weight_map": {name: file for file, name in parts.items()}}
    (tmp_path / weights.INDEX).write_text(json.dumps(index))
    weights.load(model, tmp_path)
    assert all(bool((p == 2).all()) for p in model.parameters())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInputError, match=r"model-00002-of-00002\.safetensors: No such file"):
        weights.load(model, tmp_path)
    save_file(stale, str(tmp_path / weights.WHOLE))
    weights.load(model, tmp_path)
    assert not any(bool(p.any()) for p in model.parameters())
    (tmp_path / weights.WHOLE).unlink()
    (tmp_path / weights.INDEX).write_text("{}")
    with pytest.raises(BadInputError, match=r"index\.json: damaged"):
        weights.load(model, tmp_path)


def test_quantized_weights_are_nothing_to_begin_with(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2, bias=False)
    save_file({"weight": model.weight.detach().bfloat16()}, str(tmp_path / "model.safetensors"))
    weights.load(model, tmp_path)
    save_file({"weight": torch.ones(2, 2, dtype=torch.int8)}, str(tmp_path / "model.safetensors"))
    with pytest.raises(BadInputError, match="weight is stored as I8, quantized"):
        weights.load(model, tmp_path)


def test_exported_files_hold_at_most_what_is_allowed() -> None:
    sizes = {"a": 3, "b": 3, "c": 5, "d": 9, "e": 1}
    assert exported.split_by_size(sizes, 6) == [["a", "b"], ["c"], ["d"], ["e"]]


def test_time_that_is_hidden_does_not_count() -> None:
    compute = [(0.0, 2.0), (1.0, 3.0), (5.0, 6.0)]
    assert profiling.length(compute) == 4
    assert profiling.exposed([(2.5, 4.0), (3.5, 4.5), (5.2, 5.8)], compute) == 1.5
    assert profiling.exposed([], compute) == 0


def test_no_time_of_a_step_counts_twice() -> None:
    """Reading on a CPU computes as well; on a GPU it may go on while that computes."""
    data, compute, communication = [(0.0, 2.0)], [(1.0, 4.0)], [(1.5, 1.8), (3.0, 5.0)]
    on_cpu = profiling.split(data, compute, communication, on_gpu=False)
    assert on_cpu == {"data": 2.0, "compute": 2.0, "communication": 1.0}
    on_gpu = profiling.split(data, compute, communication, on_gpu=True)
    assert on_gpu == {"data": 1.0, "compute": 3.0, "communication": 1.0}


def test_operations_of_a_token_are_palm_s() -> None:
    """GPT-2 of 124 million: 6 N, and attention over 1,024 tokens."""
    shape = models.shape(models.config_of("gpt2"))
    assert flops.per_token(124_439_808, 124_439_808, shape, 1024, True) == 6 * 124_439_808 + 12 * 12 * 768 * 1024
    assert flops.per_token(124_439_808, 124_439_808, shape, 1024, False) < 6 * 124_439_808


def test_experts_that_a_token_is_not_sent_to_compute_nothing() -> None:
    """Two of four experts, each of three matrices of 32 x 16, in each of two layers."""
    shape = models.shape(families.config("qwen3_moe"))
    assert experts.idle(mesh.skeleton(families.config("qwen3_moe"), "")) == 2 * 2 * 3 * 32 * 16
    assert flops.per_token(9, 9, shape, 0, True) - flops.per_token(9, 9, shape, 0, True, idle=4) == 24
    assert experts.idle(mesh.skeleton(families.config("llama"), "")) == 0
    assert experts.tensors(mesh.skeleton(families.config("mamba"), "")) == {}, "a convolution is none"
