"""Shards: what is written is what is read, in each order, and what is damaged is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from stackrt.train import shard_files
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.shard_files import Damaged, Shard, Source
from stackrt.train.shards import Shards

TOKENIZER = {"kind": "byte", "name": "byte", "sha256": "t", "size": 300, "end": None}


def write(folder: Path, documents: list[list[list[int]]], dtype: str = "<u2") -> list[Shard]:
    """A folder with a shard for each list of documents."""
    about = ("t", "r", Source("a.txt", 0, 9, "s"))
    shards = [
        shard_files.write_shard(folder, number, map(np.array, shard), dtype, about, "free some space")
        for number, shard in enumerate(documents)
    ]
    shard_files.write_index(folder, shards, TOKENIZER, "free some space")
    return shards


def counted(folder: Path, sizes: list[int]) -> Shards:
    """Shards whose tokens are 0, 1, 2, …, in documents of 7."""
    numbers = iter(range(sum(sizes)))
    documents = []
    for size in sizes:
        tokens = [next(numbers) for _ in range(size)]
        documents.append([tokens[at : at + 7] for at in range(0, size, 7)])
    write(folder, documents, "<u4")
    return Shards(folder)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(256, "<u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_a_token_takes_no_more_than_it_must(tmp_path: Path, vocabulary: int, dtype: str) -> None:
    assert shard_files.token_type(vocabulary) == dtype
    last = vocabulary - 1
    write(tmp_path, [[[0, last]], [[last]]], dtype)
    assert Shards(tmp_path).read(0, 9).tolist() == [0, last, last]


def test_tokens_are_one_row_over_all_shards(tmp_path: Path) -> None:
    shards = counted(tmp_path, [10, 0, 1, 30])
    assert len(shards) == shards.tokens == 41
    for first in range(41):
        for count in (1, 5, 12, 41):
            assert shards.read(first, count).tolist() == list(range(41))[first : first + count]
    assert shards.read(41, 3).tolist() == []


def test_documents_are_found(tmp_path: Path) -> None:
    shards = counted(tmp_path, [10, 0, 1, 30])
    starts = [int(start) for number in range(4) for start in shards.document_starts(number)]
    assert starts == [0, 7, 10, 11, 18, 25, 32, 39]
    for token in range(42):
        assert shards.document_start(token) == min([start for start in starts if start >= token], default=41)


def test_an_epoch_reads_each_token_once_in_another_order(tmp_path: Path) -> None:
    shards = counted(tmp_path, [500, 300, 201])
    samples = shards.samples(3, 16)
    for epoch in range(3):
        numbers = range(epoch * samples.per_epoch, (epoch + 1) * samples.per_epoch)
        rows = [samples[number].tolist() for number in numbers]
        assert all(row == list(range(row[0], row[0] + 17)) for row in rows), "a sample is neighbours, and the next"
        seen = [token for row in rows for token in row[:-1]]
        assert len(set(seen)) == len(seen) > 1001 - 2 * 16
        assert seen != sorted(seen)
    first = [samples.start(number) for number in range(20)]
    assert first != [samples.start(samples.per_epoch + number) for number in range(20)]
    assert first != [shards.samples(4, 16).start(number) for number in range(20)]
    assert first == [Shards(tmp_path).samples(3, 16).start(number) for number in range(20)]


def test_samples_stay_within_their_part(tmp_path: Path) -> None:
    samples = counted(tmp_path, [500, 300]).samples(0, 8, 100, 700)
    read = [samples[number] for number in range(2 * samples.per_epoch)]
    assert min(int(row.min()) for row in read) >= 100
    assert max(int(row.max()) for row in read) < 700


def test_the_same_tokens_are_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        counted(folder, [100, 50])
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    assert not [name for name in first if name.startswith(".")]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    first, second = write(tmp_path, [[[1, 2, 3]], [[4, 5]]])
    path = tmp_path / second.name
    good = path.read_bytes()
    shard_files.check_body(path, second)
    flip(path)
    shard_files.check_header(path, second)  # whose reader trusts what follows
    with pytest.raises(Damaged, match="checksum"):
        shard_files.check_body(path, second)
    for spoil, expected in (
        (cut_short, "it holds 4,111 bytes of 4,112"),
        (Path.unlink, "it is missing"),
        (lambda path: flip(path, 3), "it is no shard"),
        (lambda path: path.write_bytes(good.replace(b'"number": 1', b'"number": 7')), "another shard"),
        (lambda path: path.write_bytes(good.replace(b'"tokenizer": "t"', b'"tokenizer": "u"')), "another tokenizer"),
        (lambda path: path.write_bytes(b""), "it is no shard"),
    ):
        path.write_bytes(good)
        spoil(path)
        with pytest.raises(BadInputError, match=expected) as caught:
            Shards(tmp_path)
        assert str(path) in str(caught.value)
    path.write_bytes(good)
    assert Shards(tmp_path).shards == [first, second]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no prepared data"),
        ("", "it is no JSON"),
        ("[]", "it is no JSON object"),
        ("{}", "is damaged"),
        ('"tokens": 5', "is damaged"),
        ('"format": 1', "has format 2"),
    ],
)
def test_an_index_that_cannot_be_used(tmp_path: Path, content: str | None, expected: str) -> None:
    write(tmp_path, [[[1, 2, 3]], [[4, 5]]])
    index = tmp_path / shard_files.INDEX
    if content is None:
        index.unlink()
    elif content.startswith('"'):
        changed = json.loads(index.read_text())
        changed[json.loads("{" + content + "}").popitem()[0]] += 1
        if "format" in content:
            del changed["sha256"]
            changed["sha256"] = shard_files.sha256_of(changed)
        index.write_text(json.dumps(changed))
    else:
        index.write_text(content)
    with pytest.raises(BadInputError, match=expected) as caught:
        Shards(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_that_was_begun_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / shard_files.RECIPE).write_text("{}")
    with pytest.raises(BadInputError, match="prepared in part; run the same `prepare` again"):
        Shards(tmp_path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")

    def fail() -> None:
        with shard_files.replacing(path, "free some") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(TrainerError, match="a: could not be written: No space left on device; free some"):
        fail()
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_not_there_is_called_none(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="absent: there is no such folder"):
        Shards(tmp_path / "absent")
