"""Tokens to text as they come: no half characters, and nothing of a stop sequence. Standard library only."""

from collections.abc import Callable, Sequence

_HALF = "\ufffd"
_WINDOW, _OVERLAP = 24, 8
"""Tokens that are decoded again and again, and those of them that the next window begins with."""


class Pieces:
    """The text of one sequence, piece by piece.

    Args:
        decode: Token ids to text.
        stops: Texts at which it ends; they are no part of it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, stops
        self._ids: list[int] = []
        self._from = self._shown = 0  # where the window begins that is decoded, and how much of its text was given
        self._held = ""  # may be the beginning of a stop sequence
        self.stopped = False

    def add(self, token: int) -> str:
        """What may be shown once this token has come."""
        self._ids.append(token)
        now = self._decode(self._ids[self._from :])
        whole = not now.endswith(_HALF)  # else its last character may be one that is not whole yet
        fresh = now[self._shown : len(now) if whole else -1]
        self._shown += len(fresh)
        if whole and len(self._ids) - self._from > _WINDOW:
            self._from = len(self._ids) - _OVERLAP
            self._shown = len(self._decode(self._ids[self._from :]))
        return self._cut(fresh)

    def all(self, tokens: Sequence[int]) -> str:
        """The text of a sequence that nobody read before its end, and that has no stop sequences."""
        return self._decode(tokens)

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


def _overlap(text: str, stop: str) -> int:
    """How many characters at a text's end may be a stop sequence's beginning."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
