"""Options of sharded training: models' own defaults, the mesh, and what is refused before torch is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackrt.train import models
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import micro_batch, on_mesh, on_ranks, parse, sizes

LLAMA = {"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize("name", models.presets())
def test_every_preset_can_be_trained(name: str) -> None:
    o = parse(["--model", name])
    assert models.preset_settings(name).items() <= vars(o).items()
    assert models.shape(models.config_of(name)).layers >= 3


def test_a_given_option_wins_over_the_preset() -> None:
    assert parse(["--model", "llama-8b"]).dtype == "bf16"
    assert parse(["--model", "llama-8b", "--dtype", "fp32"]).dtype == "fp32"
    assert parse(["--steps", "20"]).warmup == 2


def test_ranks_that_are_left_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")
    o = parse(["--replicate", "2", "--tp", "2"])
    assert on_ranks(o, 16) == o
    assert (o.replicate, o.shard, o.tp) == (2, 4, 2)


@pytest.mark.parametrize(
    ("micro", "world", "parts"), [(4, 1, (4, 8)), (5, 1, (4, 8)), (100, 1, (32, 1)), (4, 8, (4, 1)), (3, 4, (2, 4))]
)
def test_a_batch_is_computed_in_equal_parts(
    micro: int, world: int, parts: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    assert micro_batch(parse(["--batch-size", "32", "--micro-batch", str(micro)])) == parts


@pytest.mark.parametrize(
    ("world", "line", "expected"),
    [
        (4, "--tp 3", "--replicate 1 x --shard the rest x --tp 3 does not make 4 ranks"),
        (4, "--shard 3", "--shard 3 x --tp 1 does not make 4 ranks"),
        (2, "--replicate 2 --shard 2", "does not make 2 ranks"),
        (4, "--batch-size 6", "--batch-size 6: must be a multiple of 4"),
        (4, "--tp 4", "--tp 4: must divide the 2 key-value heads of llama-tiny"),
        (3, "--tp 3", "--tp 3: must divide the 4 attention heads of llama-tiny"),
        (1, "--context 4096", "--context 4096: llama-tiny has 1,024 positions"),
        (1, "--track mlflow", "--track mlflow: "),
        (1, "--model llama-9b", "--model llama-9b: neither a preset (llama-tiny, "),
        (1, "--steps 0", "--steps 0: must be 1 or more"),
        (1, "--lr nan", "--lr nan"),
        (1, "--micro-batch 0", "--micro-batch 0: must be 1 or more"),
        (1, "--min-lr 1", "--min-lr 1.0: must not exceed --lr (0.004)"),
        (1, "--profile 3", "--profile 3: must be FROM:STEPS"),
        (1, "--profile 10:3 --steps 11", "--profile 10:3: must be FROM:STEPS, such as 10:3, within 11 steps"),
        (1, "--shard -1", "--shard -1: must be 0 or more"),
        (4, "--context-parallel 3", "--context-parallel 3: must divide --context (64)"),
        (6, "--context-parallel 4", "x --shard the rest x --context-parallel 4 x --tp 1 does not make 6 ranks"),
        (1, "--context-parallel 0", "--context-parallel 0: must be 1 or more"),
        (1, "--lora 4", "--lora 4: needs --init"),
        (1, "--lora -1 --init x", "--lora -1: must be 0 or more"),
        (1, "--lora-alpha 4", "--lora-alpha 4: needs --lora RANK"),
        (1, "--lora-targets q_proj", "needs --lora RANK"),
        (1, "--export-adapter x", "--export-adapter x: needs --lora RANK"),
        (1, "--data a.jsonl b.txt", "give dialogues (.jsonl) or text, not both"),
    ],
)
def test_what_cannot_work_is_named(world: int, line: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    with pytest.raises(BadInputError) as caught:
        parse(line.split())
    assert expected in str(caught.value)


def test_an_export_harms_neither_the_base_nor_the_other_export(tmp_path: Path) -> None:
    base, other = tmp_path / "base", tmp_path / "other"
    base.mkdir()
    (base / "config.json").write_text("{}")
    lora = ["--init", str(base), "--lora", "4"]
    refused = (
        ([*lora, "--export", f"{other}/../base"], "holds the base"),
        ([*lora, "--export", str(other), "--export-adapter", f"{other}/"], "is also --export"),
        ([*lora, "--export-adapter", str(base)], "holds a model"),
    )
    for line, told in refused:
        with pytest.raises(BadInputError, match=told):
            parse(line)
    parse([*lora, "--export", str(other), "--export-adapter", str(tmp_path / "adapter")])
    parse(["--init", str(base), "--export", str(base)])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, "config.json: No such file or directory"),
        ("{", "config.json is no JSON"),
        ({}, "does not say its model_type"),
        (LLAMA | {"hidden_size": "8"}, "config.json: hidden_size is '8', and must be a number"),
        (LLAMA | {"num_key_value_heads": 3}, "its 3 key-value heads must divide its 4 attention heads"),
        (LLAMA | {"hidden_size": 6}, "its width, 6, must be a multiple of its 4 attention heads"),
        ({"model_type": "llama", "vocab_size": 10}, "it lacks hidden_size or n_embd, num_hidden_layers or n_layer"),
    ],
)
def test_a_folder_that_is_no_model_is_named(config: Any, expected: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(BadInputError, match="--model ") as caught:
        parse(["--model", str(tmp_path)])
    assert expected in str(caught.value)


def test_ranks_that_share_a_sequence_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    o = parse(["--context-parallel", "2", "--tp", "2", "--batch-size", "6", "--micro-batch", "2"])
    assert sizes(o) == {"replicate": 1, "shard": 2, "context_parallel": 2, "tp": 2}
    assert on_mesh(o) == "replicate 1 x shard 2 x context-parallel 2 x tp 2"
    assert micro_batch(o) == (1, 3)
    assert on_mesh(on_ranks(parse(["--tp", "2"]), 8)) == "replicate 1 x shard 4 x tp 2"


def test_adapters_have_twice_their_rank_as_scale() -> None:
    o = parse(["--lora", "8", "--init", "somewhere"])
    assert (o.lora_alpha, o.lora_targets) == (16, ("all-linear",))
    assert parse(["--lora", "8", "--init", "x", "--lora-alpha", "3", "--lora-targets", "q", "v"]).lora_alpha == 3


def test_a_hub_s_name_waits_for_the_hub() -> None:
    assert models.is_hub_name("meta-llama/Llama-3.2-1B")
    assert not models.is_hub_name("llama-1b")
    assert parse(["--model", "meta-llama/Llama-3.2-1B", "--tp", "1"]).model == "meta-llama/Llama-3.2-1B"


def test_a_working_folder_that_may_not_be_searched_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root's is for the ranks of a container: a preset's name is looked for nowhere, and other names are refused."""
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.chdir(closed)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.stat", forbidden)
    assert models.folder_of(parse(["--model", "llama-tiny"]).model) is None
    with pytest.raises(BadInputError, match="--model elsewhere: neither a preset"):
        parse(["--model", "elsewhere"])
