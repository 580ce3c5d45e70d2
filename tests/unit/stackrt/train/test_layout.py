"""Published files and the model in memory: weights come and go as transformers itself reads and writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stackrt.train import exported, mesh, ranks, weights
from stackrt.train.errors import BadInputError
from stackrt.train.layout import OfTransformers
from tests.support import families

pytestmark = pytest.mark.needs("torch")

ALONE = ranks.Ranks(0, 0, 1, torch.device("cpu"), None)  # type: ignore[arg-type]


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.Ranks, "gather", lambda _, value: [value])


def filled(folder: Path, family: str) -> Any:
    """A model that is filled as the trainer does it, block by block."""
    model = mesh.skeleton(families.config(family), family)
    held = weights.Weights(folder, model, OfTransformers(model))
    held.check()
    with torch.no_grad():
        for name, block in mesh.find_blocks(model, 2).items():
            mesh.first_values(model, name, block, 0, torch.device("cpu"))
            held.fill(name, block)
        for name, module in model.named_modules():
            if any(tensor.is_meta for tensor in (*module.parameters(False), *module.buffers(False))):
                mesh.first_values(model, name, module, 0, torch.device("cpu"), recurse=False)
                held.fill(name, module)
    model.tie_weights()  # type: ignore[operator]
    return model.eval()


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "qwen3_moe", "deepseek_v3"])
@pytest.mark.usefixtures("one_rank")
def test_weights_come_and_go_as_transformers_does_it(family: str, tmp_path: Path) -> None:
    published, ours = tmp_path / "published", tmp_path / "ours"
    original = families.made(family)
    original.save_pretrained(published)
    model = filled(published, family)
    state = original.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())

    layout = OfTransformers(model)
    exported.write(model, ours, None, ALONE, layout=layout)
    theirs, mine = (load_file(folder / "model.safetensors") for folder in (published, ours))
    assert theirs.keys() == mine.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in mine.items())


@pytest.mark.usefixtures("one_rank")
def test_the_index_names_what_the_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "FILE_BYTES", 30_000)
    model = families.made("qwen3_moe")
    exported.write(model, tmp_path, None, ALONE, layout=OfTransformers(model))
    index = json.loads((tmp_path / weights.INDEX).read_text())["weight_map"]
    files = {file.name: set(load_file(file)) for file in tmp_path.glob("model-*.safetensors")}
    assert len(files) > 2
    assert {name: file for file, names in files.items() for name in names} == index
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in index
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in filled(tmp_path, "qwen3_moe").state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("lost", "mlp.experts.gate_up_proj cannot be made of model.layers.0.mlp.experts.0.gate_proj.weight"),
        ("all", "it has no model.layers.0.mlp.experts.down_proj, which the model needs"),
        ("other", "mlp.experts.down_proj is [3, 32, 16] there, and [4, 32, 16] in the model"),
        ("int8", "experts.0.up_proj.weight is stored as I8, quantized"),
    ],
)
def test_experts_that_are_not_whole_are_named(change: str, told: str, tmp_path: Path) -> None:
    model = families.made("qwen3_moe")
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    prefix = "model.layers.0.mlp.experts"
    if change == "lost":
        del held[f"{prefix}.2.up_proj.weight"]
    elif change == "all":
        held = {name: tensor for name, tensor in held.items() if not name.startswith(prefix) or "down" not in name}
    elif change == "other":
        del held[f"{prefix}.3.down_proj.weight"]
    else:
        held[f"{prefix}.0.up_proj.weight"] = held[f"{prefix}.0.up_proj.weight"].to(torch.int8)
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(BadInputError) as caught:
        filled(tmp_path, "qwen3_moe")
    assert told in str(caught.value)
