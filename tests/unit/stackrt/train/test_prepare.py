"""`prepare`: its options, and what a folder must agree in to be gone on with."""

from pathlib import Path

import pytest

from stackrt.train import errors, prepare, prepare_options, sources, vocabulary
from stackrt.train.errors import BadInputError


def parse(line: str) -> prepare_options.Options:
    return prepare_options.parse(line.split())


def test_shards_go_where_the_run_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACK_OUT", raising=False)
    assert parse("--data a").to == Path("shards")
    monkeypatch.setenv("STACK_OUT", "/out/7")
    assert parse("--data a").to == Path("/out/7/shards")
    assert parse("--data a b --to here").to == Path("here")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "--data: is missing"),
        ("--verify --data a", "--data: does not go with --verify"),
        ("--data a --vocab-size 256", "--vocab-size 256: must be from 257"),
        ("--data a --shard-bytes 5", "--shard-bytes 5: must be 1024 or more"),
    ],
)
def test_values_that_cannot_work(line: str, expected: str) -> None:
    with pytest.raises(BadInputError, match=expected):
        parse(line)


@pytest.mark.parametrize("line", ["--data", "--data a --split word", "--data a --shard 5", "--data a --seed 1"])
def test_usage_errors(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(line)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("rank", "world"), [("x", "2"), ("2", "2"), ("-1", "2")])
def test_a_place_that_is_none(
    rank: str, world: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "HEAD_START", 0)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    assert prepare.main(["--data", "a"]) == 78
    assert not capsys.readouterr().out


def agreed(folder: Path, *words: str, data: str = "a.txt") -> tuple[vocabulary.Vocabulary, dict[str, object]]:
    o = prepare_options.parse(["--data", str(folder / data), "--to", str(folder / "to"), *words])
    return prepare.agree(o, sources.plan(o.data, o.shard_bytes), first=True)


def test_a_folder_is_gone_on_with_by_the_same_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    (tmp_path / "b.txt").write_text("some text\n" * 50)
    (tmp_path / "t.json").write_text(vocabulary.train_bpe(b"some other text", 300))
    bpe = ("--tokenizer", "bpe", "--vocab-size", "300")
    learned, recipe = agreed(tmp_path, *bpe)
    assert agreed(tmp_path, *bpe) == (learned, recipe)
    for words, data, expected in (
        ((*bpe, "--field", "body"), "a.txt", "made with --field text, not body"),
        ((*bpe, "--shard-bytes", "2048"), "a.txt", "made with --shard-bytes 67108864, not 2048"),
        ((*bpe[:3], "301"), "a.txt", "made with --vocab-size 300, not 301"),
        (bpe, "b.txt", "made from other files"),
    ):
        with pytest.raises(BadInputError, match=expected):
            agreed(tmp_path, *words, data=data)
    for choice in ("byte", str(tmp_path / "t.json")):
        with pytest.raises(BadInputError, match=f"--to {tmp_path}/to: was made with "):
            agreed(tmp_path, "--tokenizer", choice)
    (tmp_path / "a.txt").write_text("some more text\n" * 50)
    with pytest.raises(BadInputError, match="files of another size"):
        agreed(tmp_path, *bpe)


def test_another_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    (tmp_path / "t.json").write_text(vocabulary.train_bpe(b"some other text", 300))
    agreed(tmp_path)
    with pytest.raises(BadInputError, match="with another tokenizer: byte, not tokenizers-"):
        agreed(tmp_path, "--tokenizer", str(tmp_path / "t.json"))


def test_content_that_changed_under_a_name_is_an_error_and_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 50)
    o = parse(f"--data {path} --to {tmp_path / 'to'}")
    (part,) = sources.plan(o.data, o.shard_bytes)
    tokenizer, made = prepare.agree(o, [part], first=True)
    first = prepare.make(o, part, tokenizer, made)
    assert prepare.make(o, part, tokenizer, made) == first
    path.write_text("same size\n" * 50)
    with pytest.raises(BadInputError, match=r"shard-000000\.bin: was made when .*a\.txt had another content"):
        prepare.make(o, part, tokenizer, made)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 50)
    (tmp_path / "to").touch()
    with pytest.raises(BadInputError, match=f"--to {tmp_path}/to: not writable: File exists; choose another folder"):
        agreed(tmp_path)


def test_only_its_own_unfinished_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STACK_OUT", raising=False)
    (tmp_path / "a.txt").write_text("a text\n")
    theirs, ours = tmp_path / ".notes.tmp", tmp_path / ".shard-000000.bin.killed-7.tmp"
    theirs.write_text("mine")
    ours.write_text("half")
    assert prepare.main(["--data", str(tmp_path / "a.txt"), "--to", str(tmp_path)]) == 0
    assert theirs.exists()
    assert not ours.exists()


def test_packed_files_in_a_folder_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STACK_OUT", raising=False)
    for name in ("a.txt", "b.jsonl.gz", "c.txt.zst"):
        (tmp_path / name).write_text("a text\n")
    assert prepare.main(["--data", str(tmp_path), "--to", str(tmp_path / "to")]) == 0
    assert f"2 packed files are not read, the first is {tmp_path / 'b.jsonl.gz'}; unpack" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_wrong_option_leaves_nothing_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command with the right option is not refused for what the wrong one left."""
    for variable in ("RANK", "WORLD_SIZE", "STACK_OUT"):
        monkeypatch.delenv(variable, raising=False)
    data, tokenizer = tmp_path / name, tmp_path / "tokenizer.json"
    tokenizer.write_text(vocabulary.train_bpe(b"one two", 260))
    is_text = name == "a.txt"
    data.write_bytes("déjà vu\n".encode("latin-1") if is_text else b'{"body": "one"}\n')
    wrong, right = (["--tokenizer", str(tokenizer)], []) if is_text else (["--field", "txt"], ["--field", "body"])
    words = ["--data", str(data), "--to", str(tmp_path / "shards")]
    assert prepare.main([*words, *wrong]) == BadInputError.exit_code
    assert ("not UTF-8" if is_text else "has no 'txt'; it has body: name one with --field") in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
    assert prepare.main([*words, *right]) == 0


def test_a_file_that_is_named_twice_is_part_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x\n" * 5000)
    o = parse(f"--data {tmp_path}/a.txt --shard-bytes 4096")

    def given(*names: str) -> object:
        return prepare.recipe(o, sources.plan([tmp_path / name for name in names], o.shard_bytes))["input"]

    assert given("a.txt") == [["a.txt", 10_000]]
    assert given("a.txt", "a.txt") == [["a.txt", 10_000]] * 2
