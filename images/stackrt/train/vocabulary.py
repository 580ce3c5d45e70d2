"""Text to token ids without torch: bytes, or a tokenizer of Hugging Face `tokenizers`."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stackrt.train import paths
from stackrt.train.errors import BadInputError
from stackrt.train.shard_files import TOKENIZER, Tokens

BYTE, LEARNED = "byte", "bpe"
PIECE = 1 << 20  # bytes; longer documents are encoded in pieces, as a tokenizer takes some 100 bytes for each token
LINES = 1 << 12  # characters that are encoded at once where it makes no difference; more leave a CPU's cache
LONGEST_RUN, LONGEST_TOKEN = 256, 64  # characters, of which no word has so many: genomes, base64
_RUN = re.compile(rf"\S{{{LONGEST_RUN}}}")
_NEWLINE = b"\n"
_BETWEEN_LINES = re.compile(r"(?<=\S)\n(?=\S)")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer.

    Attributes:
        kind: `byte`, `bpe` (learned here from the text) or `tokenizers` (from a file or folder).
        definition: Its JSON; empty for bytes.
        end: The id that ends a document; None where there is none: then a newline does.
    """

    kind: str
    definition: str = field(default="", repr=False)
    end: int | None = None

    @property
    def strict(self) -> bool:
        """Whether it takes UTF-8 only."""
        return self.kind != BYTE

    @cached_property
    def sha256(self) -> str:
        """Tells two tokenizers apart."""
        return hashlib.sha256(f"{self.kind == BYTE} {self.end} {self.definition}".encode()).hexdigest()

    @cached_property
    def size(self) -> int:
        """Ids are below it."""
        return ids_of(self._library) if self.strict else 256

    def describe(self) -> dict[str, Any]:
        """What recipe and index say of it."""
        name = self.kind if self.kind == BYTE else f"{self.kind}-{self.sha256[:16]}"
        return {"kind": self.kind, "name": name, "sha256": self.sha256, "size": self.size, "end": self.end}

    def encode(self, document: bytes, *, ends: bool = True) -> Tokens:
        """Token ids of a document.

        Args:
            document: Its text, UTF-8 where the tokenizer is strict.
            ends: Whether the document ends here, rather than in the next shard.
        """
        if ends and self.end is None and not document.endswith(_NEWLINE):
            document += _NEWLINE
        if not self.strict:
            return np.frombuffer(document, np.uint8)
        found = []
        for piece in cut(document, PIECE):
            lines = between_lines(piece.decode(), LINES) if self._splits_at_lines else [piece.decode()]
            ids: list[int] = []
            for encoded in self._library.encode_batch_fast(lines, add_special_tokens=False):
                ids.extend(encoded.ids)
            found.append(np.array(ids, np.uint32))
        found.append(np.array([self.end] if ends and self.end is not None else [], np.uint32))
        return np.concatenate(found)

    @cached_property
    def _splits_at_lines(self) -> bool:
        """Whether a text gives the same ids in pieces: GPT-2's own splitting has a newline between two words alone."""
        definition = json.loads(self.definition)
        splitting = definition.get("pre_tokenizer") or {}
        return (
            splitting.get("type") == "ByteLevel"
            and splitting.get("use_regex", True)
            and not splitting.get("add_prefix_space", True)
            and definition.get("normalizer") is None
            and definition.get("model", {}).get("type") == "BPE"
            and not any(
                token.get("lstrip") or token.get("rstrip") or "\n" in token["content"]
                for token in definition.get("added_tokens") or []
            )
        )

    @cached_property
    def _library(self) -> Any:
        try:
            return library_of(self.definition)
        except ImportError:
            raise BadInputError(
                "this tokenizer needs the package tokenizers; install it, or use an image of PyTorch"
            ) from None
        except Exception as error:  # the library's own has no name
            raise BadInputError(f"the tokenizer cannot be used: {str(error).splitlines()[0]}") from None


def library_of(definition: str) -> Any:
    """The library's tokenizer from its JSON, which may ask for each text to be cut or padded: a corpus is neither."""
    from tokenizers import Tokenizer

    library = Tokenizer.from_str(definition)
    library.no_truncation()
    library.no_padding()
    return library


def ids_of(library: Any) -> int:
    """What its ids are below: more than it has tokens, where some were taken out and the others kept their ids."""
    return max(library.get_vocab().values(), default=-1) + 1


def cut(text: bytes, size: int) -> list[bytes]:
    """Pieces of about `size` bytes, cut at line ends, else between characters."""
    pieces, at = [], 0
    while at < len(text):
        end = min(at + size, len(text))
        if end < len(text):
            newline = text.rfind(_NEWLINE, at, end)
            if newline >= at:
                end = newline + 1
            else:
                while end < len(text) and text[end] & 0xC0 == 0x80:
                    end += 1
        pieces.append(text[at:end])
        at = end
    return pieces


def between_lines(text: str, size: int) -> list[str]:
    """Pieces of at least `size` characters, cut behind newlines that stand alone, with blanks on neither side."""
    pieces, at = [], 0
    while found := _BETWEEN_LINES.search(text, at + size):
        pieces.append(text[at : found.end()])
        at = found.end()
    return [*pieces, text[at:]]


def given(choice: str) -> Vocabulary:
    """The tokenizer that a person named: `byte`, a `tokenizer.json`, or a folder that has one.

    Raises:
        BadInputError: There is none.
    """
    if choice == BYTE:
        return Vocabulary(BYTE)
    path = Path(choice)
    file = path / TOKENIZER if paths.is_folder(path) else path
    try:
        definition = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is not UTF-8"
        raise BadInputError(
            f"--tokenizer {choice}: {file}: {why}; give byte, bpe, a tokenizer.json, or a folder that has one, "
            "as `save_pretrained` of a fast tokenizer writes it"
        ) from None
    found = Vocabulary("tokenizers", definition)
    try:
        number = found._library.token_to_id(_end_token(file.parent))
    except BadInputError as error:
        raise BadInputError(f"--tokenizer {choice}: {error}") from None
    return Vocabulary("tokenizers", definition, number)


def learned(text: bytes, size: int) -> Vocabulary:
    """Byte-pair encoding of at most `size` tokens, learned from a text."""
    return Vocabulary(LEARNED, train_bpe(text, size))


def kept(folder: Path, description: dict[str, Any]) -> Vocabulary:
    """The tokenizer of a prepared folder.

    Args:
        folder: What `prepare` wrote.
        description: What recipe or index say of it.

    Raises:
        BadInputError: It is not there, or another.
    """
    definition = ""
    if description["kind"] != BYTE:
        try:
            definition = (folder / TOKENIZER).read_text(encoding="utf-8")
        except (OSError, ValueError):
            definition = ""
    found = Vocabulary(description["kind"], definition, description["end"])
    if found.sha256 != description["sha256"]:
        raise BadInputError(
            f"{folder / TOKENIZER}: is missing, damaged or another tokenizer's; "
            "put it back, or prepare the data again in an empty folder"
        )
    return found


def train_bpe(text: bytes, vocab_size: int) -> str:
    """Learn a byte-level BPE of at most `vocab_size` tokens and return its JSON; the same text gives the same JSON.

    A token has at most `LONGEST_TOKEN` characters, and of longer runs without a blank each `LONGEST_RUN` are learned
    from by themselves: the library takes time by the square of a run's length, and would make a token of all of it.
    """
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False, max_token_length=LONGEST_TOKEN
    )
    library.train_from_iterator(_short_runs(text.decode("utf-8", errors="replace")), trainer)
    return str(library.to_str())


def _short_runs(text: str) -> Iterator[str]:
    """The lines of a text, cut where a run without a blank gets too long."""
    for line in text.splitlines(keepends=True):
        at = 0
        for run in _RUN.finditer(line) if len(line) > LONGEST_RUN else ():
            yield line[at : run.end()]
            at = run.end()
        yield line[at:]


def _end_token(folder: Path) -> str:
    """The token that ends a text, as a Hugging Face folder names it beside `tokenizer.json`."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        try:
            token: Any = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return ""
