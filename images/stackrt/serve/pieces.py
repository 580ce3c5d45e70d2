"""Tokens to text as they come: no half characters, and nothing of a stop sequence. Standard library only."""

from collections.abc import Callable, Sequence

_HALF = "\ufffd"
_WINDOW, OVERLAP, _MOST = 24, 8, 256
"""Tokens that are decoded again and again, and those of them that the next window begins with."""


class Pieces:
    """The text of one sequence, piece by piece.

    Args:
        decode: Token ids to text.
        stops: Texts at which it ends; they are no part of it.
        before: Tokens that it goes on from: some tokenizers leave out the space at the beginning of a text.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        self._decode, self._stops = decode, stops
        self._ids, self._shown = _end_of(before, decode)
        self._from = 0  # where the window begins that is decoded; so much of its text was given as _shown says
        self._held = ""  # may be the beginning of a stop sequence
        self.stopped = False

    def add(self, token: int) -> str:
        """What may be shown once this token has come."""
        self._ids.append(token)
        now = self._decode(self._ids[self._from :])
        # Its last character may be one that is not whole yet; some tokenizers then spoil those before it as well.
        fresh = now[self._shown : len(now.rstrip(_HALF))]
        self._shown += len(fresh)
        if not now.endswith(_HALF) and len(self._ids) - self._from > _WINDOW:
            self._move()
        return self._cut(fresh)

    def _move(self) -> None:
        """Begin the next window where a character begins, if there is such a place; else further back for a while."""
        for overlap in range(OVERLAP, 0, -1):
            text = self._decode(self._ids[-overlap:])
            if not text.startswith(_HALF) or len(self._ids) - self._from > _MOST:
                self._from, self._shown = len(self._ids) - overlap, len(text)
                return

    def all(self, tokens: Sequence[int]) -> str:
        """The text of a sequence that nobody read before its end, and that has no stop sequences."""
        return self._decode([*self._ids, *tokens])[self._shown :]

    def end(self) -> str:
        """What is left when no more tokens come."""
        if self.stopped:
            return ""
        return self._cut(self._decode(self._ids[self._from :])[self._shown :], last=True)

    def _cut(self, fresh: str, *, last: bool = False) -> str:
        whole = self._held + fresh
        found = [at for at in (whole.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return whole[: min(found)]
        held = 0 if last else max((_overlap(whole, stop) for stop in self._stops), default=0)
        self._held = whole[len(whole) - held :]
        return whole[: len(whole) - held]


def _end_of(before: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[list[int], int]:
    """The last of some tokens, as many as are whole characters, and the length of their text."""
    for overlap in range(min(OVERLAP, len(before)), 0, -1):
        text = decode(before[-overlap:])
        if not (text.startswith(_HALF) or text.endswith(_HALF)):
            return list(before[-overlap:]), len(text)
    return [], 0


def _overlap(text: str, stop: str) -> int:
    """How many characters at a text's end may be a stop sequence's beginning."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
