"""Input files to documents: text, JSONL and parquet, cut into parts that each give one shard.

How files are cut depends on them and on `--shard-bytes` alone, never on how many processes there are.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from stackrt.train.errors import BadInputError

TEXT, JSONL, PARQUET = "text", "JSONL", "parquet"
KINDS = {
    ".txt": TEXT, ".text": TEXT, ".md": TEXT, ".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".parquet": PARQUET,
}  # fmt: skip
SOUGHT = [suffix for suffix in KINDS if suffix != ".json"]  # in folders, where that is mostly something else
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_CHUNK = 1 << 20
_LONGEST = 1 << 20
"""Bytes of a line after which a text is cut within it: some have no line ends at all, as text8."""


@dataclass(frozen=True)
class Part:
    """What one shard is made of: lines that start in bytes `begin` to before `end`, or so many row groups."""

    number: int
    path: Path
    kind: str
    begin: int
    end: int
    bytes: int


@dataclass(frozen=True)
class Loaded:
    """A part's content.

    Attributes:
        documents: Each document's text.
        ends: Whether the last one ends here, rather than in the next part.
        sha256: Of the input.
    """

    documents: list[bytes]
    ends: bool
    sha256: str


def find(given: Sequence[Path]) -> list[Path]:
    """The files that were given, and those in folders that were, in order of their names.

    Raises:
        BadInputError: One is missing or packed, or there is none in a folder.
    """
    files: list[Path] = []
    for path in given:
        try:
            path.stat()
        except OSError as error:
            raise BadInputError(f"--data {path}: {error.strerror}") from None
        if path.is_dir():
            if not (inside := _inside(path)):
                raise BadInputError(f"--data {path}: no file in it ends in {', '.join(SOUGHT)}; name the files")
            files += inside
        elif not path.is_file():
            raise BadInputError(f"--data {path}: is a pipe or a device, and is read in parts; write it to a file first")
        elif path.suffix.lower() in PACKED:
            raise BadInputError(f"--data {path}: is packed, and cannot be read in parts; unpack it first")
        else:
            files.append(path)
    return files


def packed_inside(given: Sequence[Path]) -> list[Path]:
    """The files in folders that were given which `find` passes over, though there may be text in them, in order."""
    return [file for path in given if path.is_dir() for file in _inside(path, PACKED)]


def _inside(folder: Path, sought: Sequence[str] = SOUGHT) -> list[Path]:
    """The files of a folder and those below it that have a known ending, but for hidden ones, in order."""

    def fail(error: OSError) -> None:
        raise BadInputError(f"--data {error.filename}: {error.strerror}; make it readable") from None

    found = []
    for above, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(above, name) for name in names if not name.startswith(".")]
    chosen = [path for path in found if path.suffix.lower() in sought and _is_file(path)]
    return sorted(chosen, key=lambda path: path.relative_to(folder).parts)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # a link that leads nowhere
        return False
    except OSError as error:
        raise BadInputError(f"--data {path}: {error.strerror}; make it readable") from None


def plan(files: Sequence[Path], shard_bytes: int) -> list[Part]:
    """Cut files into parts of about `shard_bytes`.

    Raises:
        BadInputError: A file cannot be read, or there is nothing in any.
    """
    parts: list[Part] = []
    for path in files:
        kind = KINDS.get(path.suffix.lower(), TEXT)
        try:
            with path.open("rb"):
                size = path.stat().st_size
        except OSError as error:
            raise BadInputError(f"--data {path}: {error.strerror}; give a readable file") from None
        if kind == PARQUET:
            cuts = _group(_row_groups(path), shard_bytes)
        else:
            cuts = [
                (at, min(at + shard_bytes, size), min(shard_bytes, size - at)) for at in range(0, size, shard_bytes)
            ]
        parts += [Part(len(parts) + n, path, kind, *bounds) for n, bounds in enumerate(cuts)]
    if not parts:
        raise BadInputError(f"--data {' '.join(map(str, files))}: nothing in it; give a file with some text")
    return parts


def share(parts: Sequence[Part], rank: int, world_size: int) -> list[Part]:
    """A rank's parts: the largest first, each goes to the rank that has least so far."""
    loads = [0] * world_size
    mine = []
    for part in sorted(parts, key=lambda part: (-part.bytes, part.number)):
        least = min(range(world_size), key=lambda r: (loads[r], r))
        loads[least] += part.bytes
        if least == rank:
            mine.append(part)
    return sorted(mine, key=lambda part: part.number)


def load(part: Part, *, field: str, split: str, strict: bool) -> Loaded:
    """Read a part.

    Args:
        part: Of `plan`.
        field: Where JSONL and parquet have the text.
        split: Whether a text file is one document, or each line is one: `file` or `line`.
        strict: Whether text must be UTF-8.

    Raises:
        BadInputError: It is no text, no JSON or no parquet: names file and line.
    """
    if part.kind == PARQUET:
        texts = _column(part, field)
        digest = hashlib.sha256()
        for text in texts:
            digest.update(b"%d:" % len(text) + text)
        return Loaded(texts, ends=True, sha256=digest.hexdigest())
    try:
        data, at, size = _lines(part, whole=part.kind == JSONL or split == "line")
    except OSError as error:
        raise BadInputError(f"--data {part.path}: {error.strerror}") from None
    sha256 = hashlib.sha256(data).hexdigest()
    if part.kind == JSONL:
        return Loaded(list(_from_json(part.path, data, at, field)), ends=True, sha256=sha256)
    if strict:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise BadInputError(
                f"{part.path}:{_line(part.path, at + error.start)}: byte {at + error.start:,} is not UTF-8; "
                "convert the file with iconv, or use --tokenizer byte"
            ) from None
    if split == "line":
        return Loaded(
            [line.removesuffix(b"\r") for line in data.split(b"\n") if line.strip()], ends=True, sha256=sha256
        )
    return Loaded([data] if data else [], ends=at + len(data) == size, sha256=sha256)


def glance(parts: Sequence[Part], *, field: str, strict: bool) -> None:
    """See by the first line of each file, or its columns, that what is asked for is there, before anything is written.

    Raises:
        BadInputError: See `load`.
    """
    for part in parts:
        if part.begin == 0 and part.kind == PARQUET:
            _with_column(part, field)
        elif part.begin == 0 and (part.kind == JSONL or strict):
            load(replace(part, end=1), field=field, split="file", strict=strict)


def head(parts: Sequence[Part], size: int, *, field: str) -> bytes:
    """The first documents of all parts, about `size` bytes of them, to learn a vocabulary from."""
    texts: list[bytes] = []
    have = 0
    for part in parts:
        for text in load(part, field=field, split="file", strict=True).documents:
            texts.append(text[: size - have])
            have += len(texts[-1])
            if have >= size:
                return b"\n".join(texts)
    return b"\n".join(texts)


def _lines(part: Part, *, whole: bool) -> tuple[bytes, int, int]:
    """The lines that start within a part, where the first one does, and the file's size.

    Lines end in a newline only: other separators are part of a text.

    Args:
        whole: Whether no line is ever divided; otherwise one longer than `_LONGEST` is cut where the part is.
    """
    with part.path.open("rb") as file:
        size = file.seek(0, 2)
        begin, end = (_cut(file, at, size, whole=whole) for at in (part.begin, part.end))
        file.seek(begin)
        return file.read(max(0, end - begin)), begin, size


def _cut(file: BinaryIO, at: int, size: int, *, whole: bool) -> int:
    """Where a part that is to begin at this byte does: the line that the byte before is part of belongs to the last."""
    if at == 0 or at >= size:
        return min(at, size)
    file.seek(at - 1)
    rest = at - 1 + len(file.readline(-1 if whole else _LONGEST))
    file.seek(rest - 1)
    if whole or rest == size or file.read(1) == b"\n":
        return rest
    file.seek(at)
    return at + next((n for n, byte in enumerate(file.read(4)) if byte & 0xC0 != 0x80), 0)  # divides no character


def _from_json(path: Path, data: bytes, at: int, field: str) -> Iterator[bytes]:
    for number, line in enumerate(data.split(b"\n")):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            text = row[field]
            if not isinstance(text, str):
                raise TypeError
            yield text.encode()
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadInputError(f"{path}:{_line(path, at) + number}: {_broken(line, error, field)}") from None


def not_json(line: bytes, error: Exception) -> str:
    """Why a line of JSONL is no JSON, and what to do; empty for another error."""
    if isinstance(error, json.JSONDecodeError):
        whole_file = "; a file that is one JSON value is no JSONL" if line.lstrip()[:1] in b"[{" and error.pos else ""
        return f"is not JSON: {error.msg} (column {error.colno}){whole_file}; mend or remove the line"
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 (byte {error.start + 1} of the line); convert the file with iconv"
    if isinstance(error, RecursionError):
        return "is JSON that is nested too deeply; mend or remove the line"
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        return "holds a number of more digits than can be read; mend or remove the line"
    return ""


def _broken(line: bytes, error: Exception, field: str) -> str:
    """What is wrong with a line of JSONL, and what to do."""
    if isinstance(error, UnicodeEncodeError):
        return f"{field!r} holds half of a surrogate pair, which is no text; mend or remove the line"
    if told := not_json(line, error):
        return told
    row = json.loads(line)
    if not isinstance(row, dict):
        return f"is a JSON {type(row).__name__}, and must be an object with the text in {field!r}"
    if field in row:
        return f"{field!r} is a JSON {type(row[field]).__name__}, and must be text"
    return f"has no {field!r}; it has {', '.join(sorted(row)[:9]) or 'nothing'}: name one with --field"


def _line(path: Path, offset: int) -> int:
    """The number of the line, from 1, that a byte is in; counted only when something is wrong there."""
    number = 1
    with path.open("rb") as file:
        while offset > 0 and (chunk := file.read(min(_CHUNK, offset))):
            number += chunk.count(b"\n")
            offset -= len(chunk)
    return number


# ---------------------------------------------------------------------------------------------------------------------
# Parquet


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise BadInputError(
            f"--data {path}: parquet needs the package pyarrow, which the images do not have; install it "
            "(`pip install pyarrow`), build it into an image of your own, or convert the file to JSONL"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise BadInputError(f"--data {path}: is no whole parquet file: {str(error).splitlines()[0]}") from None


def _row_groups(path: Path) -> list[int]:
    """The size of each row group."""
    metadata = _parquet(path).metadata
    return [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]


def _group(sizes: Sequence[int], least: int) -> list[tuple[int, int, int]]:
    """Neighbours joined until they have `least` bytes: first, one past the last, and bytes."""
    groups, begin, total = [], 0, 0
    for number, size in enumerate(sizes):
        total += size
        if total >= least or number == len(sizes) - 1:
            groups.append((begin, number + 1, total))
            begin, total = number + 1, 0
    return groups


def _with_column(part: Part, field: str) -> Any:
    file = _parquet(part.path)
    names = file.schema_arrow.names
    if field not in names:
        raise BadInputError(
            f"{part.path}: has no column {field!r}; it has {', '.join(names[:9])}: name one with --field"
        )
    return file


def _column(part: Part, field: str) -> list[bytes]:
    file = _with_column(part, field)
    try:
        values = file.read_row_groups(range(part.begin, part.end), columns=[field]).column(0).to_pylist()
    except (OSError, ValueError) as error:
        raise BadInputError(f"{part.path}: row group {part.begin} or after: {str(error).splitlines()[0]}") from None
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise BadInputError(
                f"{part.path}: row {row} after row group {part.begin}: {field!r} is {type(value).__name__}, "
                "and must be text"
            )
    return [value.encode() for value in values]
