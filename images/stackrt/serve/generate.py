"""Tokens for many requests at once: each joins the batch between two steps, and leaves it when it is done.

All rows of a batch end at the same column; to the left of the shorter ones is padding that the mask hides.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stackrt.serve.waiting import Waiting

COLD = 1e-5
"""Below this temperature logits are no longer finite once they are divided by it."""

Put = Callable[[int | None, str], None]
"""Is given each token, and at last None with why there are no more: `stop`, `length`, `time`, `busy` or `error`."""


@dataclass(eq=False)
class Row:
    """One text that is being made.

    Attributes:
        prompt: Its tokens.
        limit: The most tokens to make.
        put: See Put; called on the engine's thread.
        ends: Tokens that end it.
        temperature: 0 always takes the likeliest token.
        top_p: Of the likeliest tokens, those that make up this share.
        seed: Of its draws.
        deadline: When it must be done, by the monotonic clock.
        whole: Whether `put` is called at its end alone: nobody reads its tokens before that.
        tokens: What was made.
    """

    prompt: list[int]
    limit: int
    put: Put
    ends: frozenset[int] = frozenset()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    deadline: float = math.inf
    since: float = field(default_factory=time.monotonic)
    gone: bool = False
    whole: bool = False
    tokens: list[int] = field(default_factory=list)
    first: float = 0.0
    size: int = 1
    generator: torch.Generator | None = None

    def expired(self) -> None:
        """It waited too long for its turn."""
        self.put(None, "busy")

    @property
    def greedy(self) -> bool:
        """Whether its next token is the likeliest one: also where nothing else has a chance that fp32 can hold."""
        return self.temperature < COLD or self.top_p == 0.0

    def add(self, token: int, now: float) -> None:
        """It has a token more, and may be done."""
        if not self.tokens:
            self.first = now
        if token in self.ends:
            self.put(None, "stop")
            self.gone = True
            return
        self.tokens.append(token)
        if not self.whole:
            self.put(token, "")
        if len(self.tokens) >= self.limit or now > self.deadline:
            self.put(None, "length" if len(self.tokens) >= self.limit else "time")
            self.gone = True

    def draw(self, logits: Tensor) -> int:
        """The next token, of logits of shape [vocabulary], where it is not the likeliest one."""
        if self.generator is None:
            self.generator = torch.Generator()
            if self.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(self.seed)
        likely = (logits / self.temperature).softmax(-1)
        if self.top_p < 1.0:
            ordered, which = likely.sort(descending=True)
            within = ordered.cumsum(-1) - ordered < self.top_p  # the first one always is
            return int(which[torch.multinomial(ordered * within, 1, generator=self.generator)])
        return int(torch.multinomial(likely, 1, generator=self.generator))


class Batch:
    """The rows that are computed together, and what the model keeps of their tokens.

    Args:
        model: A causal language model whose cache is plain (see `plain`).
        vocabulary: Tokens that the tokenizer knows; a model may have more.
    """

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        self._model, self._vocabulary = model, vocabulary
        self._device = next(model.parameters()).device
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._device)
        self._last: list[int] = []

    def join(self, new: Sequence[Row]) -> None:
        """Read the prompts of new rows, make a token for each, and put them beside the others."""
        longest = max(len(row.prompt) for row in new)
        ids = torch.zeros(len(new), longest, dtype=torch.long)
        mask = torch.zeros(len(new), longest, dtype=torch.long)
        for index, row in enumerate(new):
            ids[index, longest - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[index, longest - len(row.prompt) :] = 1
        mask = mask.to(self._device)
        answer = self._forward(ids.to(self._device), mask, (mask.cumsum(-1) - 1).clamp(min=0), None)
        if self.rows:
            self._cache, self._mask = _merged(self._cache, self._mask, answer.past_key_values, mask)
        else:
            self._cache, self._mask = answer.past_key_values, mask
        self.rows += new
        self._last += self._draw(new, answer.logits)
        self._leave()

    def step(self) -> None:
        """A token more for each row."""
        ids = torch.tensor(self._last, device=self._device)[:, None]
        places = self._mask.sum(-1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], -1)
        answer = self._forward(ids, self._mask, places, self._cache)
        self._cache = answer.past_key_values
        self._last = self._draw(self.rows, answer.logits)
        self._leave()

    def forget(self) -> None:
        """Drop all rows."""
        self.rows, self._last, self._cache = [], [], None

    def _forward(self, ids: Tensor, mask: Tensor, places: Tensor, cache: Any) -> Any:
        return self._model(input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache,
                           use_cache=True, logits_to_keep=1)  # fmt: skip

    def _draw(self, rows: Sequence[Row], logits: Tensor) -> list[int]:
        """Hand each row its next token; a row that is done is marked as gone."""
        last = logits[:, -1, : self._vocabulary].float()
        drawn: list[int] = last.argmax(-1).tolist()
        good = last.amax(-1).isfinite().tolist()  # of numbers that are none, the likeliest is any token
        of_rows = last.cpu() if any(not row.greedy for row in rows) else last
        now = time.monotonic()
        for index, row in enumerate(rows):
            if row.gone:  # its client has hung up
                continue
            try:
                if not good[index]:
                    raise RuntimeError("its logits are no numbers; the others' may be")
                drawn[index] = drawn[index] if row.greedy else row.draw(of_rows[index])
            except RuntimeError:
                row.put(None, "error")
                row.gone = True
                continue
            row.add(drawn[index], now)
        return drawn

    def _leave(self) -> None:
        """Drop the rows that are done, and the columns that only they needed."""
        keep = [index for index, row in enumerate(self.rows) if not row.gone]
        if len(keep) == len(self.rows):
            return
        self.rows, self._last = [self.rows[index] for index in keep], [self._last[index] for index in keep]
        if not keep:
            self._cache = None
            return
        chosen = torch.tensor(keep, device=self._device)
        self._mask = self._mask[chosen]
        width = int(self._mask.sum(-1).max())
        self._mask = self._mask[:, -width:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen][..., -width:, :].contiguous()
            layer.values = layer.values[chosen][..., -width:, :].contiguous()


def _merged(cache: Any, mask: Tensor, other: Any, other_mask: Tensor) -> tuple[Any, Tensor]:
    """Two batches as one: the shorter one gets padding at its left. The second cache is used up."""
    width = max(mask.shape[1], other_mask.shape[1])

    def padded(part: Tensor, side: int) -> Tensor:
        missing = width - part.shape[side]
        shape = list(part.shape)
        shape[side] = missing
        return torch.cat([part.new_zeros(shape), part], side) if missing else part

    for one, two in zip(cache.layers, other.layers, strict=True):
        one.keys = torch.cat([padded(one.keys, -2), padded(two.keys, -2)])
        one.values = torch.cat([padded(one.values, -2), padded(two.values, -2)])
        two.keys = two.values = None
    return cache, torch.cat([padded(mask, 1), padded(other_mask, 1)])


def plain(cache: Any) -> bool:
    """Whether a model's cache is keys and values of all tokens, and nothing else: rows may come and go."""
    return all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)


class Engine:
    """The thread that computes.

    Args:
        batch: See Batch.
        waiting: Where requests wait for it.
        most: Rows of a batch.
        watch: Is told the size of each batch, after it was computed.
        tell: Is told of errors.
    """

    def __init__(
        self, batch: Batch, waiting: Waiting[Row], most: int, watch: Callable[[int], None], tell: Callable[[str], None]
    ) -> None:
        self._batch, self.waiting, self._most, self._watch, self._tell = batch, waiting, most, watch, tell
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still computes."""
        return self._thread.is_alive()

    @property
    def load(self) -> int:
        """Rows that are computed now."""
        return len(self._batch.rows)

    def close(self) -> None:
        """End it, with all that wait."""
        self._ended = True
        self.waiting.close()
        self._thread.join(10)

    @torch.inference_mode()
    def _run(self) -> None:
        while not self._ended:
            rows = self._batch.rows
            new = self.waiting.take(self._most - len(rows), wait=not rows)
            if not (new or rows):
                continue
            count = len(rows) + len(new)
            try:
                if rows:
                    self._batch.step()
                if new:
                    self._batch.join(new)
                self._watch(count)
            except Exception as error:  # a row that cannot be computed must not end the others to come
                self._tell(f"{type(error).__name__}: {error}")
                for row in {*self._batch.rows, *new}:
                    if not row.gone:
                        row.put(None, "error")
                        row.gone = True
                self._batch.forget()
