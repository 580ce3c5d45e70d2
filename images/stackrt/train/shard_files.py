"""The files of a prepared folder: shards of tokens, and their index. How they are read is in shards.py.

    index.json         all shards, tokenizer, token type; written last, so it exists only if the folder is whole
    recipe.json        what the folder is made of: input, options, tokenizer
    tokenizer.json     the tokenizer, in the form of Hugging Face `tokenizers`; none for bytes
    shard-000000.bin   4,096 bytes of header (a line that says what it is, then JSON), the tokens, zeros up to a
                       multiple of 8 bytes, and the first token of each document as a 64-bit number

All numbers are little-endian. A shard is written under another name, flushed to disk and renamed, so a name that exists
is a whole shard; its header has the SHA-256 of what follows. No file holds a time, a path or a machine's name: the same
input gives the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackrt.train import paths
from stackrt.train.errors import BadInputError, TrainerError

FORMAT = 1
INDEX, RECIPE, TOKENIZER = "index.json", "recipe.json", "tokenizer.json"
HEADER = 4096
MAGIC = b"stack-shard 1\n"
_CHUNK = 1 << 22
_UNFINISHED = ".tmp"

Tokens = npt.NDArray[Any]


class Damaged(Exception):
    """A shard that is not what the index says; says why."""


@dataclass(frozen=True)
class Source:
    """The input of a shard: bytes, or a parquet file's row groups, from `begin` to before `end`."""

    file: str
    begin: int
    end: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A shard's header; `tokenizer` and `recipe` are their SHA-256, and `sha256` that of all after the header."""

    number: int
    tokens: int
    documents: int
    dtype: str
    tokenizer: str
    recipe: str
    source: Source
    sha256: str

    @property
    def name(self) -> str:
        """Its file."""
        return shard_name(self.number)

    @property
    def file_size(self) -> int:
        """The file's size."""
        return HEADER + _padded(self.tokens * np.dtype(self.dtype).itemsize) + 8 * self.documents

    def header(self) -> bytes:
        """The first bytes of its file."""
        text = MAGIC + json.dumps(asdict(self), sort_keys=True).encode()
        return text.ljust(HEADER - 1) + b"\n"


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:06d}.bin"


def token_type(vocabulary: int) -> str:
    """The smallest type for ids below `vocabulary`."""
    return "<u1" if vocabulary <= 1 << 8 else "<u2" if vocabulary <= 1 << 16 else "<u4"


# ---------------------------------------------------------------------------------------------------------------------
# Writing


@contextmanager
def replacing(path: Path, advice: str) -> Iterator[Path]:
    """Give a name to write to, and rename the file at the end: a reader sees the old file, the new one, or none.

    Args:
        path: The file.
        advice: What to do where it cannot be written.

    Raises:
        TrainerError: The disk is full or failing. Nothing half-written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}{_UNFINISHED}")
    try:
        yield temporary
        temporary.replace(path)
        paths.sync_folder(path.parent)
    except OSError as error:
        raise TrainerError(f"{path}: could not be written: {error.strerror}; {advice}") from None
    finally:
        temporary.unlink(missing_ok=True)


def left_over(folder: Path) -> list[Path]:
    """What killed processes left half-written; the folder may hold other files of that ending, which are not ours."""
    ours = ("shard-*.bin", INDEX, RECIPE, TOKENIZER)
    return [path for name in ours for path in folder.glob(f".{name}.*{_UNFINISHED}")]


def write_json(path: Path, value: Mapping[str, Any], advice: str) -> None:
    """Replace a JSON file; see `replacing`."""
    write_text(path, json.dumps(value, indent=1) + "\n", advice)


def write_text(path: Path, text: str, advice: str) -> None:
    """Replace a file; see `replacing`."""
    with replacing(path, advice) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_shard(
    folder: Path, number: int, documents: Iterable[Tokens], dtype: str, about: tuple[str, str, Source], advice: str
) -> Shard:
    """Write a shard, so that it is either whole or absent.

    Args:
        folder: Where to.
        number: Its place among the shards.
        documents: The tokens of each document.
        dtype: The type of a token, of `token_type`.
        about: SHA-256 of tokenizer and recipe, and the input.
        advice: What to do where it cannot be written.

    Raises:
        TrainerError: The disk is full or failing.
    """
    digest, starts, count = hashlib.sha256(), [0], 0
    with replacing(folder / shard_name(number), advice) as temporary, temporary.open("wb") as file:
        file.seek(HEADER)
        for tokens in documents:
            data = tokens.astype(dtype, copy=False).tobytes()
            digest.update(data)
            file.write(data)
            count += len(tokens)
            starts.append(count)
        size = count * np.dtype(dtype).itemsize
        tail = bytes(_padded(size) - size) + np.array(starts[:-1], dtype="<u8").tobytes()
        digest.update(tail)
        file.write(tail)
        shard = Shard(number, count, len(starts) - 1, dtype, *about, digest.hexdigest())
        file.seek(0)
        file.write(shard.header())
        file.flush()
        os.fsync(file.fileno())
    return shard


def write_index(folder: Path, shards: Sequence[Shard], tokenizer: Mapping[str, Any], advice: str) -> dict[str, Any]:
    """Write the index, which makes a folder whole.

    Args:
        folder: The shards' folder.
        shards: All of them, in order.
        tokenizer: What `recipe.json` says of it.
        advice: What to do where it cannot be written.
    """
    index = {
        "format": FORMAT,
        "tokenizer": dict(tokenizer),
        "tokens": sum(shard.tokens for shard in shards),
        "documents": sum(shard.documents for shard in shards),
        "shards": [asdict(shard) for shard in shards],
    }
    index["sha256"] = sha256_of(index)
    write_json(folder / INDEX, index, advice)
    return index


def sha256_of(value: object) -> str:
    """SHA-256 of a value as JSON, in one form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Checking


def read_header(path: Path) -> Shard:
    """What a shard's file says of itself, with its size checked.

    Raises:
        Damaged: It is missing, short or no shard.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
            size = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise Damaged("it is missing") from None
    try:
        if not head.startswith(MAGIC):
            raise ValueError
        shard = from_row(json.loads(head[len(MAGIC) :]))
    except (ValueError, TypeError, KeyError):
        raise Damaged("its header is damaged, or it is no shard") from None
    if size != shard.file_size:
        raise Damaged(f"it holds {size:,} bytes of {shard.file_size:,}")
    return shard


def check_header(path: Path, wanted: Shard) -> None:
    """See that a shard's file is the one that the index names; what follows the header is not read.

    Raises:
        Damaged: It is not.
    """
    found = read_header(path)
    if found.tokenizer != wanted.tokenizer:
        raise Damaged("it was made with another tokenizer")
    if found != wanted:
        raise Damaged("it is another shard than the index names")


def check_body(path: Path, wanted: Shard) -> None:
    """Read a shard's file from end to end.

    Raises:
        Damaged: It is not what the index says.
    """
    check_header(path, wanted)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(HEADER)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted.sha256:
        raise Damaged("its content does not match its checksum")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file.

    Raises:
        BadInputError: It is not readable as one.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no JSON"
        raise BadInputError(f"{path}: {why}; delete it, and prepare the data again") from None
    if not isinstance(value, dict):
        raise BadInputError(f"{path}: it is no JSON object; delete it, and prepare the data again")
    return value


def read_index(folder: Path) -> tuple[dict[str, Any], list[Shard]]:
    """The index of a prepared folder, and its shards.

    Raises:
        BadInputError: There is none, or it is damaged.
    """
    index = read_json(folder / INDEX)
    if index is None and not folder.is_dir():
        raise BadInputError(f"{folder}: there is no such folder; name what `prepare --to` made")
    if index is None:
        begun = (folder / RECIPE).exists()
        why = "prepared in part; run the same `prepare` again" if begun else "no prepared data; run `prepare --to` it"
        raise BadInputError(f"{folder}: Is a directory without {INDEX}: {why}")
    try:
        whole = index.pop("sha256") == sha256_of(index)
        if index["format"] != FORMAT:
            raise BadInputError(f"{folder / INDEX}: has format {index['format']}, and this program reads {FORMAT}")
        shards = [from_row(row) for row in index["shards"]]
    except (ValueError, TypeError, KeyError):
        whole, shards = False, []
    if not whole:
        raise BadInputError(f"{folder / INDEX}: is damaged; run the same `prepare` again")
    return index, shards


def from_row(row: Mapping[str, Any]) -> Shard:
    """A header from its JSON.

    Raises:
        ValueError: Fields are missing, or unknown ones there.
    """
    if set(row) != {field.name for field in fields(Shard)}:
        raise ValueError
    return Shard(**{**row, "source": Source(**row["source"])})


def _padded(size: int) -> int:
    return -(-size // 8) * 8
