"""A prepared folder as the corpus of the GPT trainer: what text.py makes of text, for data larger than memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from stackrt.train import paths, vocabulary
from stackrt.train import text as texts
from stackrt.train.errors import BadInputError
from stackrt.train.shards import Samples, Shards

COUNTED = 1 << 22  # training tokens that the bigram model counts


@dataclass(frozen=True)
class SampleWindows:
    """Samples as batches, see `text.Windows`."""

    samples: Samples

    def batch(self, first: int, count: int) -> texts.Batch:
        """Sequences number `first` to `first + count - 1` of the run, as int64."""
        rows = torch.from_numpy(np.stack([self.samples[number] for number in range(first, first + count)]))
        return texts.Batch(rows[:, :-1], rows[:, 1:])


@dataclass(frozen=True)
class PreparedCorpus(texts.Corpus):
    """Shards; `train` and `val` are the first tokens of either part, and `cut` is where training ends."""

    shards: Shards
    cut: int

    # The order is a function of seed and position, so a run may go on with other ranks and see each sample once.
    may_change: ClassVar[tuple[str, ...]] = ("WORLD_SIZE", "--batch-size", "--grad-accum")

    @property
    def tokens(self) -> tuple[int, int]:
        """How many tokens there are to train on, and to validate."""
        return self.cut, self.shards.tokens - self.cut

    def windows(self, context: int, seed: int) -> SampleWindows:
        """The training order."""
        return SampleWindows(self.shards.samples(seed, context, 0, self.cut))


def is_prepared(data: Sequence[Path]) -> bool:
    """Whether `--data` is a folder, and no text."""
    return any(paths.is_folder(path) for path in data)


def load(
    data: Sequence[Path], val_fraction: float, context: int, eval_tokens: int, vocab_size: int
) -> tuple[texts.Tokenizer, texts.Corpus]:
    """Open a prepared folder; its last documents, about `val_fraction` of the tokens, are kept for validation.

    Raises:
        BadInputError: It is not whole, too short, or its tokenizer does not fit the model.
    """
    if len(data) > 1:
        raise BadInputError("--data: give one prepared folder, or files of text")
    folder = data[0]
    try:
        shards = Shards(folder)
    except BadInputError as error:
        raise BadInputError(f"--data {error}") from None
    size = int(shards.tokenizer["size"])
    if size > vocab_size:
        raise BadInputError(
            f"--vocab-size {vocab_size}: {folder} has tokens of {size:,} kinds; give --vocab-size {size} or more"
        )
    tokenizer = _tokenizer(vocabulary.kept(folder, shards.tokenizer))
    if tokenizer.size != size:  # as an earlier `prepare` counted, which stored ids beyond as others
        raise BadInputError(
            f"--data {folder}: its tokenizer's ids go up to {tokenizer.size - 1:,}, and it was prepared for {size:,} "
            "kinds; prepare the data again, in an empty folder"
        )
    wanted = int(shards.tokens * (1 - val_fraction))
    cut = shards.document_start(wanted)
    cut = cut if cut < shards.tokens else wanted  # one long document
    texts.check_length(cut, shards.tokens - cut, context)
    train, val = shards.read(0, min(cut, COUNTED)), shards.read(cut, max(eval_tokens, context) + 1)
    return tokenizer, PreparedCorpus(_tensor(train), _tensor(val), shards.digest, shards, cut)


def _tokenizer(found: vocabulary.Vocabulary) -> texts.Tokenizer:
    return texts.BpeTokenizer(found.definition) if found.definition else texts.ByteTokenizer()


def _tensor(tokens: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> Tensor:
    return torch.from_numpy(tokens)
