"""Prepared tokens as trainers read them: memory-mapped, and shuffled by a function of seed and position.

    shards = Shards(Path("shards"))
    samples = shards.samples(seed=0, context=1024)
    samples[7]                                     tokens of sample 7 of the run, and the one after them

Neither this module nor the files' format (shard_files.py) needs torch.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from stackrt.train.errors import BadInputError
from stackrt.train.permutation import Permutation
from stackrt.train.shard_files import HEADER, Damaged, Tokens, check_header, read_index, sha256_of

MOST_MAPS = 1024  # shards that one process holds open; Linux allows 65,530 mappings, and others need some


class Shards:
    """A prepared folder as one long row of tokens, memory-mapped.

    Attributes:
        tokens: How many there are.
        tokenizer: What the index says of it: `kind`, `name`, `sha256`, `size` and `end`, the id that ends a document.
        digest: Identifies content and order.

    Args:
        folder: What `prepare` wrote.

    Raises:
        BadInputError: It is not whole: names the shard that is missing, short or another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index, self.shards = read_index(folder)
        for shard in self.shards:
            try:
                check_header(folder / shard.name, shard)
            except (Damaged, OSError) as damage:
                why = (damage.strerror if isinstance(damage, OSError) else None) or damage
                raise BadInputError(
                    f"{folder / shard.name}: {why}; run the same `prepare` again, which makes it"
                ) from None
        self.tokenizer: dict[str, Any] = index["tokenizer"]
        self.tokens = int(index["tokens"])
        self.digest = sha256_of(index)
        self._begins = [0, *accumulate(shard.tokens for shard in self.shards)]
        self._opened = lru_cache(MOST_MAPS)(self._open)

    def __len__(self) -> int:
        return self.tokens

    def read(self, first: int, count: int) -> Tokens:
        """Tokens number `first` to `first + count - 1`, as int64; past the end there are none."""
        parts, at, end = [], first, min(first + count, self.tokens)
        while at < end:
            number = bisect_right(self._begins, at) - 1
            begin, stop = self._begins[number], min(end, self._begins[number + 1])
            parts.append(self._opened(number)[at - begin : stop - begin].astype(np.int64))
            at = stop
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def document_starts(self, number: int) -> Tokens:
        """The first token of each document of a shard, counted over all shards."""
        shard = self.shards[number]
        at = shard.file_size - 8 * shard.documents
        starts = np.fromfile(self.folder / shard.name, dtype="<u8", count=shard.documents, offset=at)
        return starts.astype(np.int64) + self._begins[number]

    def document_start(self, token: int) -> int:
        """Where the first document at or after a token begins; the number of tokens where there is none."""
        number = max(0, bisect_right(self._begins, token) - 1)
        for shard in range(number, len(self.shards)):
            starts = self.document_starts(shard)
            if (place := int(np.searchsorted(starts, token))) < len(starts):
                return int(starts[place])
        return self.tokens

    def samples(self, seed: int, context: int, begin: int = 0, end: int | None = None) -> "Samples":
        """The tokens from `begin` to before `end`, cut into samples and shuffled."""
        return Samples(self, seed, context, begin, self.tokens if end is None else end)

    def _open(self, number: int) -> Tokens:
        shard = self.shards[number]
        return np.memmap(self.folder / shard.name, shard.dtype, "r", offset=HEADER, shape=(shard.tokens,))


@dataclass(frozen=True)
class Samples:
    """The training order, a pure function of seed and position: no reader has a state, and none knows of ranks.

    An epoch cuts the tokens into samples of `context`, shifted by a random offset, and visits each once in a random
    order. Less than a context at each end is left out, another in each epoch.
    """

    shards: Shards
    seed: int
    context: int
    begin: int
    end: int

    @property
    def per_epoch(self) -> int:
        """Samples in an epoch, whatever its offset."""
        return max(0, self.end - self.begin - self.context) // self.context

    def start(self, number: int) -> int:
        """Where sample `number` of the run begins, in tokens."""
        epoch, place = divmod(number, self.per_epoch)
        offset, order = _epoch(self.seed, epoch, self.context, self.per_epoch)
        return self.begin + offset + order[place] * self.context

    def __getitem__(self, number: int) -> Tokens:
        """Sample `number` of the run and the token after it, `context` + 1 of them."""
        return self.shards.read(self.start(number), self.context + 1)


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, context: int, samples: int) -> tuple[int, Permutation]:
    return Permutation(context, (seed, "offset", epoch))[0], Permutation(samples, (seed, "order", epoch))
