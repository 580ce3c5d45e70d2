"""What a sharded language model reads: text and tokenizer to batches, dealt by position, whatever the mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from stackrt.finetune import dialogues
from stackrt.train import paths, prepared
from stackrt.train import text as texts
from stackrt.train.command_line import DEFAULT_TEXT
from stackrt.train.lm_options import Options, are_dialogues
from stackrt.train.ranks import Ranks
from stackrt.train.shard_files import TOKENIZER
from stackrt.train.text import Batch, Packed, Tokenizer

ANY_SIZE = 1 << 62  # for `prepared.load`, whose own check is of another trainer's option


class Windows(Protocol):
    """Sequences by their number in the run."""

    def batch(self, first: int, count: int) -> Batch | Packed:
        """Sequences number `first` to `first + count - 1`."""


@dataclass(frozen=True)
class Samples:
    """What is trained on, and what is held out.

    Attributes:
        train: Sequences by their number in the run.
        held_out: Windows, one after another; all of what `--evaluate` reads.
        digest: Equal digests mean equal batches.
        bigram: Loss of the bigram model on the held-out windows.
        about: One line for a person.
        counted: How many targets count in so many sequences from one on.
        template: The chat template that its tokenizer lacks.
    """

    train: Windows
    held_out: Batch | Packed
    digest: str
    bigram: float
    about: str
    counted: Callable[[int, int], int]
    template: str = ""


def load(o: Options, folder: Path | None, vocabulary: int, ranks: Ranks) -> tuple[Samples, Path | None]:
    """Read the text, or open the prepared folder, on every rank, and see that all ranks have the same.

    Args:
        o: `--data` and how it is read.
        folder: The model's, which may bring a tokenizer.
        vocabulary: Rows of the model's embeddings.
        ranks: All of them.

    Returns:
        What is read, and the folder that the tokenizer came from, if any.

    Raises:
        BadInputError: It cannot be read, is too short, differs between nodes, or does not fit the model.
    """
    tokenizer_folder: Path | None = None
    corpus: texts.Corpus | dialogues.Chats
    with ranks.together():
        if prepared.is_prepared(o.data):
            tokenizer, corpus = prepared.load(o.data, o.val_fraction, o.context, o.eval_tokens, ANY_SIZE)
            tokenizer_folder = o.data[0]
            fits(tokenizer, f"--data {o.data[0]}", vocabulary, o)
        else:
            tokenizer, tokenizer_folder = tokenizer_of(o, folder)
            fits(tokenizer, f"--tokenizer {o.tokenizer or tokenizer_folder or 'byte'}", vocabulary, o)
            if are_dialogues(o.data):
                corpus = dialogues.load(o, tokenizer, tokenizer_folder)
            else:
                corpus = texts.tokenize(texts.read_text(o.data), tokenizer, o.val_fraction, o.context)
    texts.see_that_same(corpus.digest, ranks)
    if isinstance(corpus, dialogues.Chats):
        template = "" if corpus.template.own else corpus.template.source
        found = Samples(corpus.train, corpus.held_out, corpus.digest, corpus.bigram, corpus.about,
                        corpus.train.counted, template)  # fmt: skip
        return found, tokenizer_folder
    held_out = texts.validation_windows(corpus.val, o.context, o.eval_tokens)
    bigram = texts.bigram_loss(corpus.train, corpus.val[: held_out.inputs.numel() + 1], tokenizer.size)
    shipped = o.data == (DEFAULT_TEXT,)
    source = "ten plays by Shakespeare, shipped with this trainer" if shipped else ", ".join(map(str, o.data))
    train, val = corpus.tokens
    about = (f"{source}; {train:,} tokens to train on, {val:,} to validate "
             f"({tokenizer.name.partition('-')[0]}, {tokenizer.size:,} kinds)")  # fmt: skip
    windows = corpus.windows(o.context, o.seed)
    return Samples(
        windows, held_out, corpus.digest, bigram, about, lambda _, count: count * o.context
    ), tokenizer_folder


def tokenizer_of(o: Options, folder: Path | None) -> tuple[Tokenizer, Path | None]:
    """The tokenizer that is asked for, else the model's own, else bytes; and the folder it came from.

    Args:
        o: `--tokenizer`, if given.
        folder: The model's, which may bring a tokenizer.

    Raises:
        BadInputError: It cannot be read.
    """
    if o.tokenizer and o.tokenizer != "byte":
        folder = Path(o.tokenizer)
    asked = bool(o.tokenizer)
    if folder is None or o.tokenizer == "byte" or not (asked or paths.is_there(folder / TOKENIZER)):
        return texts.ByteTokenizer(), None
    return texts.tokenizer_in(folder), folder


def fits(tokenizer: Tokenizer, told: str, vocabulary: int, o: Options) -> None:
    """See that the model has embeddings for all tokens."""
    texts.check_vocabulary(tokenizer, told, vocabulary, o.model)


def held_out_part(
    windows: Batch | Packed, number: int, size: int, reader: int, readers: int
) -> tuple[Batch | Packed, Tensor]:
    """Part `number` of a reader's share of the held-out windows, and which rows of it count.

    Every reader has the same number of parts, since all ranks compute together; what is not there is filled with the
    first windows, and does not count.
    """
    rows = torch.arange(size) + (number * readers + reader) * size
    count = rows < len(windows.inputs)
    rows = torch.where(count, rows, 0)
    return type(windows)(*(part[rows].long() for part in windows)), count
