"""Tokens, the training order and the bigram baseline, each against something simpler."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from stackrt.train import text as texts
from stackrt.train import vocabulary
from stackrt.train.command_line import DEFAULT_TEXT
from stackrt.train.errors import BadInputError

SENTENCES = "To be, or not to be: that is the question.\nWhether 'tis nobler — ça va? 日本\n" * 40


def test_bytes_round_trip_any_content() -> None:
    tokenizer = texts.ByteTokenizer()
    tokens = tokenizer.encode(bytes(range(256)))
    assert tokens.tolist() == list(range(256))
    assert tokenizer.decode(tokenizer.encode(SENTENCES.encode()).tolist()) == SENTENCES


def test_bpe_round_trips_shortens_and_is_reproducible() -> None:
    first, second = (texts.train_bpe(SENTENCES.encode(), 300) for _ in range(2))
    assert first == second
    tokenizer = texts.BpeTokenizer(first)
    tokens = tokenizer.encode(SENTENCES.encode())
    assert 256 < tokenizer.size <= 300
    assert len(tokens) < len(SENTENCES.encode()) / 2
    assert tokenizer.decode(tokens.tolist()) == SENTENCES
    unseen = "zebra Ω 🦓\r\n\x0btab\t"
    assert tokenizer.decode(tokenizer.encode(unseen.encode()).tolist()) == unseen


@pytest.mark.parametrize("kind", ["ends of lines", "a space first", "ours"])
def test_a_text_has_the_tokens_that_it_has_as_a_whole(kind: str) -> None:
    """And the last of its lines no others than the first: as transformers gives, `prepare` makes and a server reads."""
    poem = "The first line,\n\nthe second one.\n\n\n  The third:\r\nça va?\x0b\u2028End" * 30
    if kind == "ours":
        library = Tokenizer.from_str(texts.train_bpe(poem.encode(), 300))
    else:
        library = Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        if kind == "ends of lines":
            split = pre_tokenizers.Split(Regex(r"\p{L}+|[^\s\p{L}]+[\r\n]*|\s*[\r\n]+|\s+"), "isolated")
            library.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(use_regex=False)])
        library.train_from_iterator([poem], trainers.BpeTrainer(vocab_size=200, show_progress=False))
    found = texts.BpeTokenizer(library.to_str()).encode(poem.encode()).tolist()
    assert found == library.encode(poem, add_special_tokens=False).ids
    prepared = vocabulary.Vocabulary("tokenizers", library.to_str())
    assert found == prepared.encode(poem.encode(), ends=False).tolist()


def test_a_tokenizer_that_was_saved_to_cut_and_pad_does_neither() -> None:
    definition = texts.train_bpe(SENTENCES.encode(), 300)
    saved = Tokenizer.from_str(definition)
    saved.enable_truncation(4)
    saved.enable_padding(length=6)
    plain, found = texts.BpeTokenizer(definition), texts.BpeTokenizer(saved.to_str())
    assert found.encode(SENTENCES.encode()).tolist() == plain.encode(SENTENCES.encode()).tolist()
    assert found.encode_with_places(SENTENCES) == plain.encode_with_places(SENTENCES)


@pytest.mark.parametrize("text", ["a\nb\nc\nd\n" * 50, "日本語" * 100, "no line end at all", "x\n"])
@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.5, 0.9])
def test_split_loses_nothing_and_divides_no_character(text: str, fraction: float) -> None:
    train, val = texts.split_text(text.encode(), fraction)
    assert (train + val).decode() == text
    train.decode()
    val.decode()


def brute_force_bigram(train: list[int], val: list[int], size: int) -> float:
    """The same model by dictionaries, one token at a time."""
    pairs, contexts, unigrams = Counter(pairwise(train)), Counter(train[:-1]), Counter(train)
    losses = []
    for k in (1, 3, 10, 30, 100, 300, 1000):
        total = 0.0
        for a, b in pairwise(val):
            prior = (unigrams[b] + 1) / (len(train) + size)
            total -= math.log((pairs[a, b] + k * prior) / (contexts[a] + k))
        losses.append(total / (len(val) - 1))
    return min(losses)


def test_bigram_equals_brute_force() -> None:
    generator = torch.Generator().manual_seed(7)
    train = torch.randint(0, 9, (2000,), generator=generator)
    val = torch.randint(0, 12, (500,), generator=generator)  # also ids that training never saw
    assert texts.bigram_loss(train, val, 12) == pytest.approx(brute_force_bigram(train.tolist(), val.tolist(), 12))


def test_bigram_learns_a_cycle_and_cannot_beat_chance() -> None:
    cycle = torch.arange(5).repeat(400)
    assert texts.bigram_loss(cycle, cycle[:100], 5) < 0.01
    noise = torch.randint(0, 8, (50_000,), generator=torch.Generator().manual_seed(1))
    assert texts.bigram_loss(noise[:40_000], noise[40_000:], 8) == pytest.approx(math.log(8), abs=0.01)


def test_default_text_has_a_known_bigram_loss() -> None:
    corpus = texts.tokenize(DEFAULT_TEXT.read_bytes(), texts.ByteTokenizer(), 0.05, 64)
    assert texts.bigram_loss(corpus.train, corpus.val, 256) == pytest.approx(2.50, abs=0.02)


def test_order_is_pure_and_visits_every_window_once_an_epoch() -> None:
    tokens = torch.arange(1000)
    windows = texts.Windows(tokens, context=16, seed=3)
    epoch = windows.starts(0, windows.per_epoch)
    assert len(set(epoch)) == windows.per_epoch
    covered = [token for start in epoch for token in range(start, start + 16)]
    assert len(set(covered)) == len(covered), "windows overlap"
    assert max(epoch) + 16 < 1000, "the last target is outside the text"
    # however it is asked for, at whatever time
    again = texts.Windows(tokens, context=16, seed=3)
    assert [again.starts(i, 1)[0] for i in reversed(range(windows.per_epoch))][::-1] == epoch
    assert windows.starts(windows.per_epoch, windows.per_epoch) != epoch
    assert texts.Windows(tokens, context=16, seed=4).starts(0, 20) != epoch[:20]


def test_batches_are_the_windows_and_what_follows() -> None:
    windows = texts.Windows(torch.arange(1000), context=16, seed=0)
    batch = windows.batch(5, 3)
    assert batch.inputs.shape == batch.targets.shape == (3, 16)
    assert torch.equal(batch.inputs + 1, batch.targets)
    assert batch.inputs[:, 0].tolist() == windows.starts(5, 3)


def test_a_step_reads_the_same_windows_however_it_is_dealt() -> None:
    windows = texts.Windows(torch.arange(5000), context=8, seed=0)

    def step(world: int, accumulate: int, batch: int) -> set[int]:
        return {
            start
            for micro in range(accumulate)
            for rank in range(world)
            for start in windows.starts(((3 * accumulate + micro) * world + rank) * batch, batch)
        }

    assert step(1, 1, 16) == step(4, 1, 4) == step(2, 4, 2)
    assert len(step(4, 1, 4)) == 16


def test_validation_windows_are_consecutive_and_capped() -> None:
    val = torch.arange(101)
    inputs, targets = texts.validation_windows(val, 10, 1000)
    assert inputs.flatten().tolist() == list(range(100))
    assert targets.flatten().tolist() == list(range(1, 101))
    assert texts.validation_windows(val, 10, 35).inputs.shape == (3, 10)
    assert texts.validation_windows(val, 10, 1).inputs.shape == (1, 10)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "No such file"), (b"", "no text"), (b" \n\n", "no text"), (b"short", "training tokens")],
)
def test_unusable_text_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "my.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=expected) as caught:
        texts.tokenize(texts.read_text([path]), texts.ByteTokenizer(), 0.1, 64)
    assert "--data" in str(caught.value)


def test_seeds_for_different_purposes_differ() -> None:
    seeds = {texts.mix(seed, purpose, rank) for seed in range(4) for purpose in ("a", "b") for rank in range(4)}
    assert len(seeds) == 32
    assert all(0 <= seed < 2**63 for seed in seeds)
