"""Adapters: which layers get one, what is trained, and that they add what peft says they add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from stackrt.finetune import lora
from stackrt.train import exported, mesh, models, ranks
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.lm_options import Options, parse
from tests.support import families

pytestmark = pytest.mark.needs("torch")


def options(preset: str, *more: str) -> Options:
    return parse(["--model", preset, "--init", "somewhere", "--lora", "4", *more])


def adapted(preset: str, *more: str) -> Any:
    family = preset in families.FAMILIES
    o = options("llama-tiny" if family else preset, *more)
    config = families.config(preset) if family else models.config_of(preset)
    model = mesh.skeleton(config, preset)
    plan = mesh.plan(model, config, o)
    return model, plan


@pytest.mark.parametrize(("preset", "layers"), [("llama-tiny", 7), ("qwen-tiny", 7), ("gpt2-tiny", 4)])
def test_each_linear_layer_of_each_block_gets_one_and_nothing_else_is_trained(preset: str, layers: int) -> None:
    model, plan = adapted(preset)
    found = lora.adapters(model)
    assert len(found) == layers * len(plan.blocks)
    assert all(adapter.transposed == (preset == "gpt2-tiny") for adapter in found)
    assert all(p.is_meta for p in model.parameters())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for adapter in found for name in (adapter.a, adapter.b)}
    before = {name for name, _ in mesh.skeleton(models.config_of(preset), preset).named_parameters()}
    assert {lora.plain(name) for name, _ in model.named_parameters() if not lora.is_adapter(name)} == before


def test_layers_are_named_by_the_end_of_their_names() -> None:
    model, _ = adapted("llama-tiny", "--lora-targets", "q_proj", "mlp.down_proj", "--lora-alpha", "4")
    kinds = {adapter.weight.split("layers.0.")[-1] for adapter in lora.adapters(model) if "layers.0." in adapter.weight}
    assert kinds == {"self_attn.q_proj.weight", "mlp.down_proj.weight"}
    assert {adapter.scale for adapter in lora.adapters(model)} == {1.0}


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ("q_proj nosuch", "--lora-targets nosuch: no layer of the model ends in that"),
        ("nosuch", "--lora-targets nosuch: "),
        ("lm_head", "lm_head is not in a block; name others"),
        ("embed_tokens", "embed_tokens is not in a block; name others"),
        ("input_layernorm", "is not supported"),
    ],
)
def test_layers_that_cannot_be_adapted_are_named(targets: str, told: str) -> None:
    with pytest.raises(BadInputError) as caught:
        adapted("llama-tiny", "--lora-targets", *targets.split())
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("qwen3_moe", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("deepseek_v3", {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}),
    ],
)
def test_of_a_model_with_experts_what_attends_is_adapted(family: str, layers: set[str]) -> None:
    """A layer that is named as an expert's is none that peft would find again."""
    model, plan = adapted(family)
    found = {adapter.weight.split(".")[-2] for adapter in lora.adapters(model)}
    assert found == layers
    assert len(lora.adapters(model)) == len(layers) * len(plan.blocks)
    for target in ("gate_proj", "mlp.experts"):
        with pytest.raises(
            BadInputError, match=f"--lora-targets {target}: of a model with experts these layers can be"
        ):
            adapted(family, "--lora-targets", "o_proj", target)


def test_a_model_that_peft_leaves_alone_asks_for_layers() -> None:
    with pytest.raises(BadInputError, match="--lora 4: peft adapts no layer of llama-tiny by itself; name some with"):
        adapted("mamba")
    assert lora.adapters(adapted("mamba", "--lora-targets", "in_proj")[0])


@pytest.mark.parametrize("preset", ["llama-tiny", "gpt2-tiny"])
def test_what_is_added_is_what_peft_adds(preset: str) -> None:
    import torch

    model, plan = adapted(preset, "--lora-alpha", "7")
    model.to_empty(device="cpu")
    name, block = next(iter(plan.blocks.items()))
    lora.first_values(name, block, 0)
    parameters = dict(model.named_parameters())
    for adapter in lora.adapters(block):
        a, b = (parameters[f"{name}.{held}"].detach() for held in (adapter.a, adapter.b))
        assert float(a.abs().sum()) > 0
        assert not b.any()
        torch.nn.init.normal_(b)
        layer: Any = block.get_submodule(adapter.weight.removesuffix(".weight"))
        assert torch.equal(adapter.delta(a, b), layer.get_delta_weight("default"))
        assert layer.base_layer.weight.shape == adapter.delta(a, b).shape


def test_a_layer_is_split_as_its_weight_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, plan = adapted("llama-tiny", "--tp", "2")
    styles = {name.removeprefix("model.layers.0."): type(style).__name__ for name, style in plan.styles.items()
              if name.startswith("model.layers.0.")}  # fmt: skip
    assert styles["self_attn.q_proj.base_layer"] == styles["self_attn.q_proj.lora_B.default"] == "ColwiseParallel"
    assert styles["mlp.down_proj.base_layer"] == styles["mlp.down_proj.lora_A.default"] == "RowwiseParallel"
    assert "self_attn.q_proj.lora_A.default" not in styles
    assert "mlp.down_proj" not in styles


def test_an_earlier_adapter_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("llama-tiny", "--lora-targets", "q_proj")[0].to_empty(device="cpu")
    o = options("llama-tiny", "--lora-targets", "q_proj", "--export-adapter", str(tmp_path))
    rank = ranks.Ranks(0, 0, 1, torch.device("cpu"), None)  # type: ignore[arg-type]
    lora.export(model, o, rank)
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(earlier) == {"adapter_model.safetensors", "adapter_config.json"}

    def full_disk(_: Any, path: str, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(exported, "save_file", full_disk)
    with pytest.raises(TrainerError, match="could not be written: No space left on device"):
        lora.export(model, o, rank)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == earlier
