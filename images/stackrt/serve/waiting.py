"""A bounded queue between the requests and the one thread that computes. Standard library only."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class FullError(Exception):
    """As many wait as may."""


class ClosedError(Exception):
    """The thread that computes has ended."""


class Item(Protocol):
    """What waits: since when, how much of a batch it takes, and whether its client still wants it."""

    since: float
    gone: bool

    @property
    def size(self) -> int: ...  # noqa: D102

    def expired(self) -> None: ...  # noqa: D102


T = TypeVar("T", bound=Item)


class Waiting(Generic[T]):
    """First come, first served.

    Args:
        most: How many may wait.
        timeout: Seconds that one may wait.
    """

    def __init__(self, most: int, timeout: float) -> None:
        self._most, self._timeout = most, timeout
        self._items: deque[T] = deque()
        self._change = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, items: Sequence[T]) -> None:
        """Add some: all or none.

        Raises:
            FullError: There is no room for all.
            ClosedError: Nobody will take them.
        """
        with self._change:
            if self._closed:
                raise ClosedError
            if len(self._items) + len(items) > self._most:
                raise FullError
            self._items.extend(items)
            self._change.notify()

    def take(self, most: int, *, wait: bool, gather: float = 0.0) -> list[T]:
        """The next ones, whose sizes together are `most` at most; those that are gone or waited too long are left out.

        Args:
            most: The room there is.
            wait: Until there is one.
            gather: Seconds to wait for more, once there is one and there is room.
        """
        with self._change:
            self._sweep()
            while wait and not self._items and not self._closed:
                self._change.wait(1.0)
                self._sweep()
            if gather and self._items:
                end = time.monotonic() + gather
                while sum(item.size for item in self._items) < most and (left := end - time.monotonic()) > 0:
                    self._change.wait(left)
            taken: list[T] = []
            while self._items and (not taken or self._items[0].size <= most) and most > 0:
                item = self._items.popleft()
                most -= item.size
                taken.append(item)
            return taken

    def close(self) -> None:
        """No more; who waits is told."""
        with self._change:
            self._closed = True
            for item in self._items:
                item.expired()
            self._items.clear()
            self._change.notify_all()

    def _sweep(self) -> None:
        late = time.monotonic() - self._timeout
        if any(item.gone or item.since < late for item in self._items):
            for item in self._items:
                if not item.gone and item.since < late:
                    item.expired()
            self._items = deque(item for item in self._items if not item.gone and item.since >= late)
