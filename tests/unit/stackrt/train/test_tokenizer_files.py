"""The tokenizer that an export gets: of bytes, learned, a folder's with all its files, a prepared folder's."""

import json
from pathlib import Path

import pytest

from stackrt.train import text, tokenizer_files, vocabulary

TEXT = bytes(range(128)).decode() + "öä → 🦊 \r\n\n\t it's  said"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_bytes_are_their_own_ids_and_round_trip(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    assert tokenizer_files.write(tmp_path, None, 64) is None
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert library.encode(TEXT).ids == list(TEXT.encode())
    assert library.decode(library.encode(TEXT).ids) == TEXT
    assert library.get_vocab_size() == 256
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 64
    assert isinstance(text.tokenizer_in(tmp_path), text.ByteTokenizer), "so that training goes on with the same tokens"


def test_a_learned_one_is_written_and_an_earlier_export_s_files_go(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("an earlier export's")
    definition = vocabulary.train_bpe(b"the fox and the other fox\n" * 9, 300)
    assert tokenizer_files.write(tmp_path, definition, 64) is None
    assert text.tokenizer_in(tmp_path).name == text.BpeTokenizer(definition).name
    assert files(tmp_path) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_folder_s_files_are_copied_also_onto_itself(tmp_path: Path) -> None:
    source, export = tmp_path / "source", tmp_path / "export"
    source.mkdir()
    export.mkdir()
    (source / "tokenizer.json").write_text(tokenizer_files.byte_definition())
    (source / "tokenizer_config.json").write_text('{"eos_token": {"content": "a"}}')
    (source / "chat_template.jinja").write_text("its own")
    (source / "README.md").write_text("not the tokenizer's")
    for folder in (export, source):
        assert tokenizer_files.write(folder, source, 64) == ord("a")
        assert (folder / "chat_template.jinja").read_text() == "its own"
    assert files(export) == files(source) - {"README.md"}


@pytest.mark.parametrize("end", [None, 5])
def test_a_prepared_folder_says_which_token_ends_a_text(tmp_path: Path, end: int | None) -> None:
    source, export = tmp_path / "shards", tmp_path / "export"
    source.mkdir()
    export.mkdir()
    (source / "index.json").write_text(json.dumps({"tokenizer": {"end": end}}))
    (source / "tokenizer.json").write_text(vocabulary.train_bpe(b"the fox\n", 300))
    assert tokenizer_files.write(export, source, 64) == end
    assert files(export) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_prepared_folder_of_bytes_has_no_tokenizer_file(tmp_path: Path) -> None:
    source, export = tmp_path / "shards", tmp_path / "export"
    source.mkdir()
    export.mkdir()
    (source / "index.json").write_text(json.dumps({"tokenizer": {"end": None}}))
    assert tokenizer_files.write(export, source, 64) is None
    assert isinstance(text.tokenizer_in(export), text.ByteTokenizer)
