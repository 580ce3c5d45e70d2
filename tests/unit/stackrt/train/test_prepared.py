"""A prepared folder as gpt's corpus: where validation begins, what is refused, and that batches are the samples."""

import json
from pathlib import Path

import pytest
import torch

from stackrt.train import prepare, prepared, vocabulary
from stackrt.train import text as texts
from stackrt.train.errors import BadInputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents of 11 bytes each, in several shards."""
    for name in ("RANK", "WORLD_SIZE", "STACK_OUT"):
        monkeypatch.delenv(name, raising=False)
    data, folder = tmp_path / "a.jsonl", tmp_path / "shards"
    data.write_text("".join(json.dumps({"text": f"text {number:05}"}) + "\n" for number in range(300)))
    assert prepare.main(["--data", str(data), "--to", str(folder), "--shard-bytes", "1024"]) == 0
    return folder


def load(folder: Path, *, fraction: float = 0.1, context: int = 8, evaluated: int = 100) -> prepared.PreparedCorpus:
    tokenizer, corpus = prepared.load([folder], fraction, context, evaluated, 256)
    assert tokenizer.size == 256
    assert isinstance(corpus, prepared.PreparedCorpus)
    return corpus


def test_validation_is_the_last_documents(folder: Path) -> None:
    corpus = load(folder)
    assert sum(corpus.tokens) == 300 * 11
    assert corpus.tokens[1] == 30 * 11
    assert bytes(corpus.val.tolist()).startswith(b"text 00270\n")
    assert bytes(corpus.train.tolist()).endswith(b"text 00269\n")


@pytest.mark.parametrize("evaluated", [1, 8, 100, 10**6])
def test_validation_reads_no_more_than_it_is_told(folder: Path, evaluated: int) -> None:
    corpus = load(folder, evaluated=evaluated)
    windows = texts.validation_windows(corpus.val, 8, evaluated)
    assert windows.inputs.shape == (max(1, min(evaluated, 329) // 8), 8)


def test_batches_are_the_samples_and_what_follows(folder: Path) -> None:
    corpus = load(folder)
    windows = corpus.windows(8, 3)
    batch = windows.batch(5, 4)
    assert batch.inputs.shape == batch.targets.shape == (4, 8)
    assert batch.inputs.dtype == torch.int64
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    assert torch.equal(windows.batch(7, 1).inputs[0], batch.inputs[2])
    seen = set()
    for number in range(windows.samples.per_epoch):
        seen.add(windows.samples.start(number))
    assert len(seen) == windows.samples.per_epoch == (270 * 11 - 8) // 8
    assert max(seen) + 8 < corpus.cut


def test_what_is_too_short_is_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match="only 330 validation tokens, and --context 100 needs 401"):
        load(folder, context=100)


def test_ids_that_an_earlier_prepare_stored_too_small_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "STACK_OUT"):
        monkeypatch.delenv(name, raising=False)
    text, definition = "some words, and some more\n" * 50, tmp_path / "tokenizer.json"
    content = json.loads(vocabulary.train_bpe(text.encode(), 300))
    words = content["model"]["vocab"]
    words[max(words, key=words.__getitem__)] = 70_000
    definition.write_text(json.dumps(content))
    (tmp_path / "a.txt").write_text(text)
    line = ["--data", str(tmp_path / "a.txt"), "--tokenizer", str(definition), "--to"]
    with monkeypatch.context() as patch:
        patch.setattr(vocabulary, "ids_of", lambda library: int(library.get_vocab_size()))
        assert prepare.main([*line, str(tmp_path / "old")]) == 0
    with pytest.raises(BadInputError, match=r"ids go up to 70,000, and it was prepared for \d+ kinds; prepare"):
        prepared.load([tmp_path / "old"], 0.2, 4, 100, 10**6)
    assert prepare.main([*line, str(tmp_path / "new")]) == 0
    tokenizer, corpus = prepared.load([tmp_path / "new"], 0.2, 4, 100, 10**6)
    assert tokenizer.size == 70_001
    assert 70_000 in corpus.train
