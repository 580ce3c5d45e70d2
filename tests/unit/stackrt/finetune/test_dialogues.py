"""Packed dialogues: each reads as if it were alone, and only what the assistant says counts."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stackrt.finetune import chat, dialogues
from stackrt.train import models, text
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import parse

pytestmark = pytest.mark.needs("torch")


def written(path: Path, count: int, answer: str = "Yes, I do.") -> Path:
    said = [(f"Is it {n}? " * (1 + n % 3), answer * (n % 2 + 1)) for n in range(count)]
    rows = [[{"role": "user", "content": asked}, {"role": "assistant", "content": told}] for asked, told in said]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


def packed_rows(found: dialogues.Chats) -> text.Packed:
    assert isinstance(found.train.held, text.Packed)
    return found.train.held


def load(path: Path, *more: str) -> dialogues.Chats:
    o = parse(["--model", "llama-tiny", "--context", "256", "--data", str(path), *more])
    return dialogues.load(o, text.ByteTokenizer(), None)


def test_rows_hold_whole_dialogues_and_count_the_assistant_s_tokens(tmp_path: Path) -> None:
    found = load(written(tmp_path / "my.jsonl", 20), "--val-fraction", "0.2")
    packed = packed_rows(found)
    assert "16 dialogues to train on, 4 held out" in found.about
    assert "written as ChatML, since the tokenizer has no chat template" in found.about
    heard = bytes(packed.targets[packed.targets >= 0].tolist()).decode()
    assert heard == "".join("Yes, I do." * (n % 2 + 1) + "<|im_end|>\n" for n in _order(packed))
    assert sum(found.train.counts) == len(heard) == found.train.counted(0, len(found.train.counts))
    # An epoch visits each row once, whoever reads it.
    rows = len(found.train.counts)
    one, parts = found.train.batch(0, rows), [found.train.batch(n, 1) for n in range(rows)]
    assert [row.tolist() for row in one.inputs] == [part.inputs[0].tolist() for part in parts]
    assert sorted(row.tolist() for row in one.inputs) == sorted(row.tolist() for row in packed.inputs)
    assert 0 < found.bigram < 5
    assert found.digest != load(written(tmp_path / "my.jsonl", 21)).digest


def test_unpacked_each_dialogue_has_a_row(tmp_path: Path) -> None:
    packed, alone = (load(written(tmp_path / "my.jsonl", 20), *more) for more in ([], ["--unpacked"]))
    assert isinstance(alone.train.held, text.Batch)
    assert len(alone.train.counts) == 19 > len(packed.train.counts)
    assert sorted(alone.train.held.targets[alone.train.held.targets >= 0]) == sorted(
        packed.train.held.targets[packed.train.held.targets >= 0]
    )
    assert (alone.train.held.targets >= 0).sum(1).min() > 0
    assert type(alone.train.batch(0, 2)) is type(alone.held_out) is text.Batch
    assert alone.digest != packed.digest
    assert "19 rows of 256 tokens, one each" in alone.about
    with pytest.raises(BadInputError, match="--unpacked: is for dialogues"):
        parse(["--unpacked"])


def _order(packed: text.Packed) -> list[int]:
    """The numbers of the dialogues as they stand in the rows, each as often as it is asked for."""
    asked = bytes(packed.inputs.flatten().tolist()).decode().split("<|im_start|>user\nIs it ")[1:]
    return [int(question.split("?")[0]) for question in asked]


@pytest.mark.parametrize("preset", ["llama-tiny", "qwen-tiny", "gpt2-tiny"])
def test_no_dialogue_sees_another_in_its_row(preset: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values: dict[str, Any] = models.config_of(preset)
    torch.manual_seed(0)
    config = AutoConfig.for_model(values.pop("model_type"), **values, use_cache=False)  # as mesh.skeleton
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    packed = packed_rows(load(written(tmp_path / "my.jsonl", 8)))
    assert (packed.positions == 0).sum() > len(packed.inputs)  # more than one in a row
    with torch.no_grad():
        together = model(input_ids=packed.inputs.long(), position_ids=packed.positions.long()).logits
        for row in range(len(packed.inputs)):
            starts = [*(packed.positions[row] == 0).nonzero().flatten().tolist(), packed.inputs.shape[1]]
            for begin, end in pairwise(starts):
                alone = model(input_ids=packed.inputs[row, begin:end][None].long()).logits[0]
                assert float((alone - together[row, begin:end]).abs().max()) < 1e-5


def test_what_is_longer_than_the_context_is_cut_or_left_out(tmp_path: Path) -> None:
    found = load(written(tmp_path / "my.jsonl", 8, "Yes, I really do. " * 20))
    assert "7 texts are longer" in found.about or "8 texts are longer" in found.about
    with pytest.raises(BadInputError, match="--context 32: no dialogue to train on has an answer that begins within"):
        load(written(tmp_path / "my.jsonl", 8), "--context", "32")
    with pytest.raises(BadInputError, match=r"my\.jsonl: give two dialogues or more"):
        load(written(tmp_path / "my.jsonl", 1))


def test_a_shared_sequence_is_read_as_a_whole_one(tmp_path: Path) -> None:
    """Each part attends, in the masks that it is given, to what comes before it in its own dialogues."""
    import torch

    from stackrt.train import masks, mesh

    batch = load(written(tmp_path / "my.jsonl", 20)).train.batch(0, 3)
    assert isinstance(batch, text.Packed)
    places = [mesh.Place(None, 0, 1, part, 4, None) for part in range(4)]  # type: ignore[arg-type]
    parts = [masks.part_of(batch, place, masks.Masks({"": 0}, None)) for place in places]
    assert torch.equal(torch.cat([part.inputs for part in parts], 1), batch.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts], 1), batch.targets)
    mask = torch.cat([part.beside["attention_mask"] for part in parts], 2)[:, 0]
    seen = mask.sum(-1)  # as many as there are tokens before it in its dialogue, and itself
    assert torch.equal(seen, batch.positions + 1)
    assert not mask.triu(1).any()


def test_a_dialogue_reads_as_transformers_writes_it(tmp_path: Path) -> None:
    """The same tokens, and the same of them the assistant's, as its tokenizer gives for a template with marks."""
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    corpus = b"What do you know? I know that two and two make four, and so do you.\n" * 9
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text.train_bpe(corpus, 320)), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path)
    messages = [{"role": "user", "content": "What is 2 \u00d7 2?"}, {"role": "assistant", "content": "I know: four."}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    template = chat.template_of(tmp_path)
    assert template.own
    (document,) = template.documents(chat.Dialogue("x:1", messages))
    mine = dialogues._encode(text.BpeTokenizer((tmp_path / "tokenizer.json").read_text()), document)
    assert mine.ids.tolist() == list(theirs["input_ids"])
    assert mine.answered.tolist() == [bool(mark) for mark in theirs["assistant_masks"]]
    assert 0 < int(mine.answered.sum()) < len(torch.as_tensor(mine.ids))


def test_tokens_of_a_learned_vocabulary_are_marked_by_their_place_in_the_text(tmp_path: Path) -> None:
    o = parse(["--model", "llama-tiny", "--context", "256", "--data", str(written(tmp_path / "my.jsonl", 8))])
    tokenizer = text.BpeTokenizer(text.train_bpe(b"Yes, I do. Is it so? \xc3\xa4 <|im_end|> user assistant\n" * 9, 300))
    found = dialogues.load(o, tokenizer, None)
    heard = tokenizer.decode(found.train.held.targets[found.train.held.targets >= 0].tolist())
    assert heard.count("Yes, I do.") == sum(n % 2 + 1 for n in range(7))
    assert heard.replace("Yes, I do.", "").replace("<|im_end|>\n", "") == ""
