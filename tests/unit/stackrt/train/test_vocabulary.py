"""Tokenizers without torch: bytes, learned here, or from a Hugging Face folder."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from stackrt.train import shard_files, vocabulary
from stackrt.train.errors import BadInputError
from stackrt.train.text import BpeTokenizer

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nobler — ça va? 日本\n" * 40


@pytest.fixture(scope="module")
def definition() -> str:
    return vocabulary.train_bpe(TEXT.encode(), 300)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 77, 10**6])
def test_pieces_lose_nothing_and_divide_no_character(size: int) -> None:
    for text in (TEXT, "日本語" * 50, "", "\n\n\n"):
        pieces = vocabulary.cut(text.encode(), size)
        assert "".join(piece.decode() for piece in pieces) == text
        assert all(pieces)


def test_bytes_end_in_a_newline() -> None:
    byte = vocabulary.given("byte")
    assert bytes(byte.encode(b"\xff")) == b"\xff\n"
    assert bytes(byte.encode(b"a\n")) == b"a\n"
    assert bytes(byte.encode(b"half", ends=False)) == b"half"
    assert (byte.size, byte.describe()["name"]) == (256, "byte")


def test_a_learned_one_is_gpt_s(definition: str) -> None:
    learned = vocabulary.learned(TEXT.encode(), 300)
    assert learned.definition == definition
    ids = learned.encode(TEXT.encode()).tolist()
    assert BpeTokenizer(definition).decode(ids) == TEXT
    assert learned.size == BpeTokenizer(definition).size <= 300
    assert learned.describe()["name"] == "bpe-" + learned.sha256[:16]


def test_runs_without_a_blank_are_learned_from_in_pieces() -> None:
    """A genome in one line: at once, it would take time by the square of its length, and become a token."""
    genome = "".join(random.Random(1).choices("ACGT", k=200_000))
    began = time.process_time()
    learned = vocabulary.learned((TEXT + genome).encode(), 1000)
    assert time.process_time() - began < 5  # 0.3 s; in one piece 10 s, and four times that for twice the length
    ids = learned.encode(genome.encode())
    assert len(ids) > len(genome) / vocabulary.LONGEST_TOKEN
    assert BpeTokenizer(learned.definition).decode(ids.tolist()).rstrip() == genome
    assert vocabulary.train_bpe(TEXT.encode(), 300) == plainly_learned(300), "words are learned from as before"


def plainly_learned(size: int) -> str:
    """From whole lines, with tokens of any length."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    return str(library.to_str())


BLANKS = "a\n\n\nb\n c \nd\u3000\ne\u00a0\n\u2003f\r\ng's\n'tis.\n\n\t\n(x)\n1\n日\n本\n"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_lines_in_pieces_give_the_same_ids(definition: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks beside a newline belong to it, and stay with it."""
    text = TEXT + BLANKS * 9
    pieces = vocabulary.between_lines(text, size)
    assert "".join(pieces) == text
    assert len(pieces) > 20
    monkeypatch.setattr(vocabulary, "LINES", size)
    assert learned_ids(definition, text) == library(definition).encode(text).ids


@pytest.mark.parametrize(
    "changed",
    [
        {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
    ],
    ids=["normalizer", "prefix", "no splitting"],
)
def test_others_get_their_text_as_it_is(
    definition: str, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.dumps(json.loads(definition) | changed)
    monkeypatch.setattr(vocabulary, "LINES", 5)
    assert learned_ids(other, TEXT) == library(other).encode(TEXT).ids


def learned_ids(definition: str, text: str) -> list[int]:
    ids: list[int] = vocabulary.Vocabulary(vocabulary.LEARNED, definition).encode(text.encode()).tolist()
    return ids


def library(definition: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(definition)


@pytest.mark.parametrize("how", ["text", "dictionary", "map"])
def test_a_hugging_face_folder(tmp_path: Path, definition: str, how: str) -> None:
    """The same ids as transformers gives, and the token that ends a text after each document."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer.from_str(definition)
    library.enable_truncation(5)
    library.enable_padding(length=50)
    PreTrainedTokenizerFast(tokenizer_object=library, eos_token="<|end|>").save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    if how != "text":
        changed = json.loads(config.read_text())
        changed["eos_token"] = {"content": "<|end|>"}
        config.write_text(json.dumps(changed))
    if how == "map":
        config.replace(tmp_path / "special_tokens_map.json")
    found = vocabulary.given(str(tmp_path))
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path, eos_token="<|end|>")
    wanted = theirs.encode(TEXT, add_special_tokens=False, truncation=False, padding=False)
    assert found.end == theirs.eos_token_id
    assert found.encode(TEXT.encode()).tolist() == [*wanted, found.end]
    assert found.encode(TEXT.encode(), ends=False).tolist() == wanted
    assert found.size == len(theirs)


def test_ids_may_have_gaps(tmp_path: Path, definition: str) -> None:
    """As where some tokens were taken out: shards hold the highest id, and a model needs a row for it."""
    content = json.loads(definition)
    words = content["model"]["vocab"]
    last = max(words, key=words.__getitem__)
    words[last] = 70_000
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = vocabulary.given(str(tmp_path))
    assert found.size == BpeTokenizer(found.definition).size == 70_001
    assert shard_files.token_type(found.size) == "<u4"
    assert 70_000 in found.encode(TEXT.encode()).tolist()


def test_what_is_kept_beside_shards_is_the_same(tmp_path: Path, definition: str) -> None:
    learned = vocabulary.Vocabulary("bpe", definition)
    path = tmp_path / "tokenizer.json"
    path.write_text(definition)
    assert vocabulary.kept(tmp_path, learned.describe()) == learned
    path.write_text(definition + " ")
    with pytest.raises(BadInputError, match=r"tokenizer\.json: is missing, damaged or another"):
        vocabulary.kept(tmp_path, learned.describe())
    path.unlink()
    with pytest.raises(BadInputError, match=r"tokenizer\.json: is missing, damaged or another"):
        vocabulary.kept(tmp_path, learned.describe())


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    for choice, expected in (
        ("gpt2", "--tokenizer gpt2: gpt2: No such file"),
        (str(tmp_path), "tokenizer.json: No such file.*save_pretrained"),
        (str(tmp_path / "bad.json"), "--tokenizer .*bad.json: the tokenizer cannot be used"),
    ):
        with pytest.raises(BadInputError, match=expected):
            vocabulary.given(choice)


def test_other_tokenizers_have_other_names(definition: str) -> None:
    made = [vocabulary.Vocabulary(*given) for given in
            (("byte",), ("bpe", definition), ("bpe", definition + " "), ("tokenizers", definition, 3))]  # fmt: skip
    assert len({one.sha256 for one in made}) == 4
