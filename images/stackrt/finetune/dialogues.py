"""Dialogues as batches: whole ones packed into rows of `--context` tokens, in which none sees another; or one a row."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stackrt.finetune import chat
from stackrt.train.errors import BadInputError
from stackrt.train.lm_options import Options
from stackrt.train.permutation import Permutation
from stackrt.train.text import Batch, BpeTokenizer, Packed, Tokenizer, bigram_loss

IGNORED = -100  # a target that does not count; PyTorch's own


class Tokens(NamedTuple):
    """A document's token ids, and which of them are the assistant's."""

    ids: Tensor
    answered: Tensor


@dataclass(frozen=True)
class Rows:
    """Packed rows, shuffled anew each epoch by a function of seed and position alone.

    Attributes:
        held: Inputs, targets and positions, [rows, context] each; positions begin at 0 in each document, which tells
            most models that none may attend to another. Without positions a row has one document.
        counts: How many targets of each row count.
    """

    held: Packed | Batch
    counts: list[int]
    seed: int

    def batch(self, first: int, count: int) -> Packed | Batch:
        """Sequences number `first` to `first + count - 1` of the run."""
        rows = torch.tensor([self._row(number) for number in range(first, first + count)])
        return type(self.held)(*(part[rows].long() for part in self.held))

    def counted(self, first: int, count: int) -> int:
        """How many of their targets count."""
        return sum(self.counts[self._row(number)] for number in range(first, first + count))

    def _row(self, number: int) -> int:
        epoch, place = divmod(number, len(self.counts))
        return _order(self.seed, epoch, len(self.counts))[place]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, rows: int) -> Permutation:
    return Permutation(rows, (seed, "dialogues", epoch))


@dataclass(frozen=True)
class Chats:
    """What is trained on, and what is held out; see `samples.Samples`."""

    train: Rows
    held_out: Packed | Batch
    digest: str
    bigram: float
    about: str
    template: chat.Template


def load(o: Options, tokenizer: Tokenizer, folder: Path | None) -> Chats:
    """Read dialogues; the last ones, about `--val-fraction` of them, are held out.

    Args:
        o: `--data` and how it is read.
        tokenizer: What turns text to ids.
        folder: The tokenizer's, which may have a chat template.

    Raises:
        BadInputError: Names the file and line that is no dialogue; there are too few; none fits into `--context`.
    """
    read = chat.read(o.data)
    if len(read) < 2:
        raise BadInputError(f"--data {' '.join(map(str, o.data))}: give two dialogues or more: one is held out")
    template = chat.template_of(folder)
    held = max(1, round(len(read) * o.val_fraction))
    parts = [
        [_encode(tokenizer, document) for dialogue in part for document in template.documents(dialogue)]
        for part in (read[:-held], read[-held:])
    ]
    digest = hashlib.sha256(f"{tokenizer.name} {template.sha256} {len(parts[0])}{' unpacked' * o.unpacked}".encode())
    for tokens in (*parts[0], *parts[1]):
        digest.update(tokens.ids.numpy().tobytes() + tokens.answered.numpy().tobytes() + b"|")
    fitting = [_fitting(part, o.context) for part in parts]
    for part, what in zip(fitting, ("to train on", "held out"), strict=True):
        if not part:
            raise BadInputError(
                f"--context {o.context}: no dialogue {what} has an answer that begins within it; give a larger one"
            )
    train, held_out = (_rows(part, o.context, packed=not o.unpacked) for part in fitting)
    rows = Rows(train, (train.targets != IGNORED).sum(1).tolist(), o.seed)
    validated = type(held_out)(*(part[: max(1, o.eval_tokens // o.context)] for part in held_out))
    cut = sum(len(tokens.ids) - 1 > o.context for part in parts for tokens in part)
    counted = sum(rows.counts)
    about = (f"{', '.join(map(str, o.data))}; {len(read) - held:,} dialogues to train on, {held:,} held out; "
             f"{len(rows.counts):,} rows of {o.context} tokens{', one each' * o.unpacked}, {counted:,} of the "
             f"assistant ({tokenizer.name.partition('-')[0]}, {tokenizer.size:,} kinds)")  # fmt: skip
    about += f"; {cut:,} texts are longer, and cut there" if cut else ""
    about += "" if template.own else "; written as ChatML, since the tokenizer has no chat template"
    return Chats(rows, validated, digest.hexdigest(), _bigram(fitting[0], fitting[1], tokenizer.size), about, template)


def _encode(tokenizer: Tokenizer, document: chat.Document) -> Tokens:
    if isinstance(tokenizer, BpeTokenizer):
        ids, places = tokenizer.encode_with_places(document.text)
    else:
        ids = list(document.text.encode())
        places = [(at, at + 1) for at, character in enumerate(document.text) for _ in character.encode()]
    return Tokens(torch.tensor(ids, dtype=torch.int32), torch.tensor(list(chat.answered(places, document.answers))))


def _fitting(documents: Sequence[Tokens], context: int) -> list[Tokens]:
    """Documents cut to a context and the token after it; those that have no answer there are left out."""
    cut = [Tokens(tokens.ids[: context + 1], tokens.answered[: context + 1]) for tokens in documents]
    return [tokens for tokens in cut if bool(tokens.answered[1:].any())]


def _rows(documents: Sequence[Tokens], context: int, *, packed: bool) -> Packed | Batch:
    lengths = [len(tokens.ids) - 1 for tokens in documents]
    rows = chat.pack(lengths, context) if packed else [[number] for number in range(len(documents))]
    inputs = torch.zeros(len(rows), context, dtype=torch.int32)
    targets = torch.full_like(inputs, IGNORED)
    positions = torch.zeros_like(inputs)
    for row, held in enumerate(rows):
        at = 0
        for number in held:
            tokens = documents[number]
            end = at + len(tokens.ids) - 1
            inputs[row, at:end] = tokens.ids[:-1]
            targets[row, at:end] = torch.where(tokens.answered[1:], tokens.ids[1:], IGNORED)
            positions[row, at:end] = torch.arange(end - at, dtype=torch.int32)
            at = end
        positions[row, at:] = torch.arange(context - at, dtype=torch.int32)  # what is left sees itself alone
    return Packed(inputs, targets, positions) if packed else Batch(inputs, targets)


def _bigram(train: Sequence[Tokens], val: Sequence[Tokens], kinds: int) -> float:
    def pairs(documents: Sequence[Tokens]) -> Tensor:  # of all neighbours, those that are in one document
        return torch.cat([torch.arange(len(tokens.ids)) for tokens in documents])[1:] > 0

    ids, others = (torch.cat([tokens.ids for tokens in part]) for part in (train, val))
    counts = torch.cat([tokens.answered for tokens in val])[1:] & pairs(val)
    return bigram_loss(ids, others, kinds, pairs(train), counts)
