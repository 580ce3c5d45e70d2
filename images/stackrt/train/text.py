"""Text for language modelling: files to tokens, tokens to batches, and the bigram model to beat."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from stackrt.train import tokenizer_files, vocabulary
from stackrt.train.errors import BadInputError
from stackrt.train.ranks import Ranks
from stackrt.train.shard_files import TOKENIZER

FEWEST_WINDOWS = 4  # a split shorter than this many contexts is a mistake rather than a data set


class Tokenizer(Protocol):
    """Bytes to token ids and back; `name` tells two vocabularies apart."""

    size: int
    name: str

    def encode(self, text: bytes) -> Tensor:
        """Token ids of a text, shape [tokens]."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids."""


class ByteTokenizer:
    """One token a byte: any file works, nothing is learned."""

    size = 256
    name = "byte"

    def encode(self, text: bytes) -> Tensor:
        """Token ids of a text, uint8 of shape [len(text)]."""
        return torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids; bytes that are not UTF-8 show as the replacement character."""
        return bytes(ids).decode("utf-8", errors="replace")


class BpeTokenizer:
    """Byte-pair encoding over bytes (Sennrich et al. 2016, as in GPT-2), by Hugging Face `tokenizers`.

    Args:
        definition: The tokenizer's JSON, from `train_bpe` or a file.
    """

    def __init__(self, definition: str) -> None:
        self.definition = definition
        self.name = "bpe-" + hashlib.sha256(definition.encode()).hexdigest()[:16]
        self._library = vocabulary.library_of(definition)
        self.size = vocabulary.ids_of(self._library)

    def encode(self, text: bytes) -> Tensor:
        """Token ids of a UTF-8 text, int32 of shape [tokens]: those of `prepare`, and of the text as a whole.

        Line by line there would be others: many tokenizers have tokens for ends of lines, or put a space before a text.
        """
        whole = text.decode("utf-8", errors="replace").encode()
        parts = [torch.zeros(0, dtype=torch.int32)]
        for piece in vocabulary.cut(whole, vocabulary.PIECE):  # the library takes a hundred bytes for each token
            (found,) = self._library.encode_batch_fast([piece.decode()], add_special_tokens=False)
            parts.append(torch.tensor(found.ids, dtype=torch.int32))
        return torch.cat(parts)

    def encode_with_places(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and from where to where in it each reaches, in characters."""
        found = self._library.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids."""
        return str(self._library.decode(list(ids)))


train_bpe = vocabulary.train_bpe


def tokenizer_in(folder: Path) -> Tokenizer:
    """The tokenizer of a folder with a `tokenizer.json`; the one that exported models of bytes have is that of bytes.

    Raises:
        BadInputError: There is none.
    """
    path = folder / TOKENIZER
    try:
        definition = path.read_text(encoding="utf-8")
        return ByteTokenizer() if tokenizer_files.is_bytes(definition) else BpeTokenizer(definition)
    except OSError as error:
        raise BadInputError(f"--tokenizer {path}: {error.strerror}; name a folder with a tokenizer.json") from None
    except Exception as error:  # the library has one kind for all
        raise BadInputError(f"--tokenizer {path}: not a tokenizer: {error}") from None


def check_vocabulary(tokenizer: Tokenizer, told: str, vocabulary: int, model: str) -> None:
    """See that a model has embeddings for all tokens; `told` begins the error.

    Raises:
        BadInputError: It has not.
    """
    if tokenizer.size > vocabulary:
        raise BadInputError(
            f"{told}: it has {tokenizer.size:,} tokens, and {model} has embeddings for {vocabulary:,}; use the "
            "tokenizer that belongs to the model"
        )


def read_text(files: Iterable[Path]) -> bytes:
    """The files' bytes, joined in order.

    Raises:
        BadInputError: A file that cannot be read, or nothing but white space in all of them.
    """
    files = list(files)
    parts = []
    for path in files:
        try:
            if not (path.is_file() or path.is_dir()) and path.exists():
                raise BadInputError(f"--data {path}: is a pipe or a device; write it to a file first")
            parts.append(path.read_bytes())
        except OSError as error:
            raise BadInputError(f"--data {path}: {error.strerror}; give a readable text file") from None
    text = b"".join(parts)
    if not text.strip():
        raise BadInputError(f"--data {' '.join(map(str, files))}: no text in it; give a file with some")
    return text


def split_text(text: bytes, val_fraction: float) -> tuple[bytes, bytes]:
    """Cut a text in two: its start for training, about `val_fraction` of it, at its end, for validation.

    The cut moves on to the next line, if there is one, and divides no character.
    """
    cut = int(len(text) * (1 - val_fraction))
    newline = text.find(b"\n", cut)
    if 0 <= newline < len(text) - 1:
        cut = newline + 1
    while cut < len(text) and text[cut] & 0xC0 == 0x80:  # a UTF-8 continuation byte, in text without line ends
        cut += 1
    return text[:cut], text[cut:]


@dataclass(frozen=True)
class Corpus:
    """A tokenized text.

    Attributes:
        train: Token ids to learn from, shape [train tokens].
        val: Token ids kept for validation, shape [validation tokens].
        digest: Identifies text, split and vocabulary; equal digests mean equal batches.
    """

    train: Tensor
    val: Tensor
    digest: str

    may_change: ClassVar[tuple[str, ...]] = ()
    """Names of the run's identity in which a resumed run may differ."""

    @property
    def tokens(self) -> tuple[int, int]:
        """How many tokens there are to train on, and to validate."""
        return len(self.train), len(self.val)

    def windows(self, context: int, seed: int) -> "Order":
        """The training order."""
        return Windows(self.train, context, seed)


def tokenize(text: bytes, tokenizer: Tokenizer, val_fraction: float, context: int) -> Corpus:
    """Split and encode a text.

    Raises:
        BadInputError: Either part is shorter than `FEWEST_WINDOWS` contexts.
    """
    train, val = (tokenizer.encode(part) for part in split_text(text, val_fraction))
    check_length(len(train), len(val), context)
    digest = hashlib.sha256(f"{tokenizer.name} {len(train)} {len(val)} ".encode() + text).hexdigest()
    return Corpus(train, val, digest)


def see_that_same(digest: str, ranks: Ranks) -> None:
    """See that all ranks read the same text.

    Raises:
        BadInputError: One does not.
    """
    digests = ranks.gather(digest)
    other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
    if other is not None:
        raise BadInputError(f"--data: rank {other} reads another text than rank 0; give every node the same files")


def check_length(train: int, val: int, context: int) -> None:
    """See that there are enough tokens.

    Raises:
        BadInputError: Either part is shorter than `FEWEST_WINDOWS` contexts.
    """
    for tokens, name, cure in (
        (train, "training", "--context"),
        (val, "validation", "--context, a larger --val-fraction"),
    ):
        fewest = FEWEST_WINDOWS * context + 1
        if tokens < fewest:
            raise BadInputError(
                f"--data: only {tokens:,} {name} tokens, and --context {context} needs {fewest:,} or more; "
                f"give more text or a smaller {cure}"
            )


class Batch(NamedTuple):
    """Token ids and the ids that follow each of them, both of shape [sequences, context]."""

    inputs: Tensor
    targets: Tensor


class Packed(NamedTuple):
    """The same where sequences are packed documents, with each token's position in its own."""

    inputs: Tensor
    targets: Tensor
    positions: Tensor


class Order(Protocol):
    """The training order."""

    def batch(self, first: int, count: int) -> Batch:
        """Sequences number `first` to `first + count - 1` of the run, as int64."""


@dataclass(frozen=True)
class Windows:
    """The training order, a pure function of (seed, step, micro-step, rank).

    An epoch cuts the tokens into windows of `context`, shifted by a random offset, and visits each once in a random
    order. Sequences are dealt to micro-steps and ranks by their place in that order, so no window is seen twice in
    an epoch, and there is no reader state to save: the step is the position.
    """

    tokens: Tensor
    context: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Windows in an epoch, whatever its offset."""
        return (len(self.tokens) - self.context) // self.context

    def starts(self, first: int, count: int) -> list[int]:
        """Where sequences number `first` to `first + count - 1` of the run begin, in tokens."""
        starts = []
        for number in range(first, first + count):
            epoch, place = divmod(number, self.per_epoch)
            offset, order = _epoch(self.seed, epoch, self.context, self.per_epoch)
            starts.append(offset + int(order[place]) * self.context)
        return starts

    def batch(self, first: int, count: int) -> Batch:
        """Sequences number `first` to `first + count - 1` of the run, as int64."""
        rows = torch.stack(
            [self.tokens[start : start + self.context + 1] for start in self.starts(first, count)]
        ).long()
        return Batch(rows[:, :-1], rows[:, 1:])


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, context: int, windows: int) -> tuple[int, Tensor]:
    generator = torch.Generator().manual_seed(mix(seed, "epoch", epoch))
    return int(torch.randint(context, (1,), generator=generator)), torch.randperm(windows, generator=generator)


def mix(seed: int, *parts: Any) -> int:
    """A 63-bit seed for one purpose, so that streams for different purposes do not overlap."""
    return int.from_bytes(hashlib.sha256(repr((seed, *parts)).encode()).digest()[:8], "big") >> 1


def validation_windows(val: Tensor, context: int, most_tokens: int) -> Batch:
    """The windows that validation reads, one after another from the start of the split."""
    windows = max(1, min(len(val) - 1, most_tokens) // context)
    used = windows * context
    return Batch(val[:used].view(windows, context), val[1 : used + 1].view(windows, context))


def bigram_loss(
    train: Tensor, val: Tensor, vocab_size: int, follows: Tensor | None = None, counts: Tensor | None = None
) -> float:
    """Validation loss, in nats a token, of a bigram model counted on the training tokens.

    p(b | a) = (n(a, b) + k p(b)) / (n(a) + k) with add-one p(b): a Dirichlet prior over each row (MacKay and Peto
    1995). Of a few k the one with the lowest *validation* loss is taken, which favours this baseline.

    Args:
        train: Token ids, shape [train tokens].
        val: Token ids, shape [validation tokens]; each but the first is predicted from the one before.
        vocab_size: Number of different ids.
        follows: For each training token but the first, whether it is learned; all are by default.
        counts: For each validation token but the first, whether it counts; all do by default.
    """
    train, val = train.long(), val.long()
    unigrams = torch.bincount(train, minlength=vocab_size).double()
    before, after = _pairs(train, follows)
    given, sought = _pairs(val, counts)
    contexts = torch.bincount(before, minlength=vocab_size).double()
    # Pairs as one number a * V + b, counted without a V x V table.
    pairs, often = torch.unique(before * vocab_size + after, return_counts=True)
    wanted = given * vocab_size + sought
    place = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    seen = torch.where(pairs[place] == wanted, often[place], 0).double()

    prior = (unigrams[sought] + 1) / (len(train) + vocab_size)
    row = contexts[given]
    return min(float(-((seen + k * prior) / (row + k)).log().mean()) for k in (1, 3, 10, 30, 100, 300, 1000))


def _pairs(tokens: Tensor, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
    before, after = tokens[:-1], tokens[1:]
    return (before, after) if chosen is None else (before[chosen], after[chosen])
