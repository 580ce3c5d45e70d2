"""What a token attends to: documents in a row are kept apart, by what each family of models takes notice of."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from stackrt.train import lm_options, masks, mesh, ranks
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import Options
from stackrt.train.text import Batch, Packed
from tests.support import families

pytestmark = pytest.mark.needs("torch")

ALONE = ranks.Ranks(0, 0, 1, torch.device("cpu"), None)  # type: ignore[arg-type]
PLACE = mesh.Place(None, 0, 1, 0, 1, None)  # type: ignore[arg-type]
LENGTH = 24


def options(*words: str) -> Options:
    return lm_options.parse(["--model", "llama-tiny", *words])


def sight(family: str, o: Options) -> tuple[torch.nn.Module, masks.Masks | None]:
    model = families.made(family)
    return model, masks.found(model, dataclasses.replace(o, model=family), PLACE, ALONE, packed=True)


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks.Ranks, "gather", lambda _, value: [value])


@torch.no_grad()
def answers(model: torch.nn.Module, batch: Batch | Packed, told: masks.Masks | None) -> torch.Tensor:
    part = masks.part_of(batch, PLACE, told)
    logits: torch.Tensor = model.eval()(input_ids=part.inputs, **part.beside).logits
    return logits


@pytest.mark.parametrize(("family", "by_masks"), [
    ("llama", False), ("mistral", False), ("gemma3_text", False), ("qwen3_moe", False), ("deepseek_v3", False),
    ("opt", True), ("falcon", True), ("gpt_oss", True),
])  # fmt: skip
def test_a_packed_document_is_answered_as_alone(family: str, by_masks: bool) -> None:
    """Also one that is longer than what a layer with a sliding window sees."""
    model, told = sight(family, options())
    assert (told is not None) is by_masks
    tokens = torch.randint(0, 256, (1, 2 * LENGTH), generator=torch.Generator().manual_seed(1))
    row = Packed(tokens, tokens, torch.arange(LENGTH).repeat(1, 2))
    alone = Batch(tokens[:, LENGTH:], tokens[:, LENGTH:])
    packed = answers(model, row, told)[:, LENGTH:]
    assert torch.allclose(packed, answers(model, alone, None), atol=1e-5)


@pytest.mark.parametrize("family", ["mamba", "bloom"])
def test_what_carries_on_from_one_document_to_the_next_is_refused(family: str) -> None:
    with pytest.raises(BadInputError, match=f"--data: {family} carries on from one dialogue to the next in a row"):
        sight(family, options())


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_masks_have_the_windows_of_each_kind_of_layer(family: str) -> None:
    """As ranks need them that share a sequence: they see what transformers would let them see."""
    model = families.made(family)
    tokens = torch.randint(0, 256, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    windows = masks._windows(model)
    assert windows in ({"": 8}, {"full_attention": 0, "sliding_attention": 8})
    told = answers(model, Batch(tokens, tokens), masks.Masks(windows, None))
    assert torch.allclose(told, answers(model, Batch(tokens, tokens), None), atol=1e-5)
    wide = answers(model, Batch(tokens, tokens), masks.Masks(dict.fromkeys(windows, 0), None))
    assert not torch.allclose(told, wide, atol=1e-3)


@pytest.mark.parametrize(("family", "told"), [
    ("mamba", "has layers that are no attention"), ("bloom", "has layers that are no attention"),
    ("gpt_oss", "computes attention in a way of its own"),
])  # fmt: skip
def test_what_no_ranks_can_share_is_refused(family: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    o = dataclasses.replace(options("--context-parallel", "2"), model=family)
    model = mesh.skeleton(families.config(family), family)
    with pytest.raises(BadInputError, match=f"--context-parallel 2: {family} {told}"):
        masks.see_shareable(model, mesh.find_blocks(model, 2).values(), o)
