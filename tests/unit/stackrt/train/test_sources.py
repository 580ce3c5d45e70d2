"""Input files: however they are cut, nothing is lost or read twice; what is broken is named by file and line."""

import json
import os
from pathlib import Path

import pytest

from stackrt.train import sources
from stackrt.train.errors import BadInputError
from stackrt.train.sources import Part

LINES = [f"line {number} " + "é" * (number * 7 % 40) for number in range(60)]


def load(part: Part, **given: object) -> sources.Loaded:
    return sources.load(part, **{"field": "text", "split": "file", "strict": True, **given})  # type: ignore[arg-type]


def documents(path: Path, size: int, **given: object) -> list[str]:
    return [text.decode() for part in sources.plan([path], size) for text in load(part, **given).documents]


@pytest.mark.parametrize("size", [3, 7, 40, 41, 1000, 10**6])
@pytest.mark.parametrize("end", ["\n", ""])
def test_however_a_file_is_cut_its_lines_are_read_once(tmp_path: Path, size: int, end: str) -> None:
    rows, lines = tmp_path / "a.jsonl", tmp_path / "a.txt"
    rows.write_text("\n".join(json.dumps({"text": line}) for line in LINES) + end)
    lines.write_text("\n".join(LINES) + end)
    assert documents(rows, size) == LINES
    assert documents(lines, size, split="line") == LINES
    assert "".join(documents(lines, size)) == lines.read_text()
    parts = sources.plan([lines], size)
    ends = [loaded.ends for loaded in map(load, parts) if loaded.documents]
    assert ends == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize("size", [3, 7, 40, 41, 1000])
def test_text_without_line_ends_is_cut_as_well(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_LONGEST", 16)
    path = tmp_path / "a.txt"
    path.write_text("aé漢😀" * 30 + "\n" + "short\n" * 9 + "x" * 50 + "\n" + "é" * 99)
    found = documents(path, size)
    assert "".join(found) == path.read_text()
    assert max(len(text.encode()) for text in found) <= size + 16
    assert documents(path, size, split="line") == path.read_text().split("\n"), "a document is never divided"


def test_lines_may_end_in_a_carriage_return(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n\r\ntwo\r\n")
    assert documents(path, 1 << 20, split="line") == ["one", "two"]
    assert documents(path, 1 << 20) == ["one\r\n\r\ntwo\r\n"]


def test_other_line_separators_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b\x0bc\x85d"}, ensure_ascii=False) + "\r\n\n")
    assert documents(path, 1 << 20) == ["a\u2028b\x0bc\x85d"]


def test_every_part_goes_to_one_rank_and_all_have_much_the_same(tmp_path: Path) -> None:
    files = []
    for number in range(7):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_bytes(b"x" * (1000 * number + 1))
    parts = sources.plan(files, 1500)
    for world in (1, 2, 3, 5, 40):
        shares = [sources.share(parts, rank, world) for rank in range(world)]
        assert sorted((part for share in shares for part in share), key=lambda part: part.number) == parts
        loads = [sum(part.bytes for part in share) for share in shares]
        assert max(loads) - min(loads) <= 1500


def test_folders_are_searched_in_order(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/10.txt", "a.md", ".hidden/x.txt", "c/.x.txt", "d.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in sources.find([tmp_path, tmp_path / "d.bin"])]
    assert found == ["a.md", "b/10.txt", "b/2.jsonl", "d.bin"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "half', r"a.jsonl:4: is not JSON: Unterminated string.* \(column 10\)"),
        ("[1, 2]", "a.jsonl:4: is a JSON list, and must be an object"),
        ('{"text": 7}', "a.jsonl:4: 'text' is a JSON int, and must be text"),
        ('{"body": "x", "id": 1}', "a.jsonl:4: has no 'text'; it has body, id: name one with --field"),
        ('{"text": "\\ud800"}', "a.jsonl:4: 'text' holds half of a surrogate pair"),
        (b'{"text": "\xff"}', "a.jsonl:4: is not UTF-8"),
        ("[" * 100_000, "a.jsonl:4: "),
        ('{"text": "a", "id": ' + "1" * 5000 + "}", "a.jsonl:4: holds a number of more digits than can be read"),
    ],
)
@pytest.mark.parametrize("size", [20, 1 << 20])
def test_a_broken_line_is_named(tmp_path: Path, line: str | bytes, expected: str, size: int) -> None:
    path = tmp_path / "a.jsonl"
    good = b'{"text": "good"}\n'
    path.write_bytes(good * 2 + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good)
    with pytest.raises(BadInputError, match=expected):
        documents(path, size)


def test_text_that_is_not_utf_8_is_named_but_for_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nthr\xe9e\n")
    for size in (5, 1 << 20):
        with pytest.raises(BadInputError, match=r"a\.txt:3: byte 11 is not UTF-8; .*--tokenizer byte"):
            documents(path, size)
    (part,) = sources.plan([path], 1 << 20)
    assert load(part, strict=False).documents == [path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absent", "No such file"),
        ("empty", "no file in it ends in .txt"),
        ("a.jsonl.gz", "is packed"),
        ("nothing.txt", "nothing in it"),
        ("pipe.txt", "is a pipe or a device"),
    ],
)
def test_input_that_is_none(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.bin").touch()
    (tmp_path / "a.jsonl.gz").touch()
    (tmp_path / "nothing.txt").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(BadInputError, match=expected) as caught:
        sources.plan(sources.find([tmp_path / name]), 1000)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_that_cannot_be_searched_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:  # root, who runs tests in containers, may read all
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInputError, match=f"--data {tmp_path}/closed: Permission denied; make it readable"):
        sources.find([tmp_path])


def test_row_groups_are_joined_until_they_fill_a_shard() -> None:
    assert sources._group([5, 5, 5, 20, 1], 10) == [(0, 2, 10), (2, 4, 25), (4, 5, 1)]
    assert sources._group([], 10) == []


def test_a_vocabulary_is_learned_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(9)))
    for size in (25, 1 << 20):
        assert sources.head(sources.plan([path], size), 20, field="text") == b"text 0\ntext 1\ntext 2\nte"
