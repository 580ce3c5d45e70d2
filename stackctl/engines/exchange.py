"""A conversation with a program that runs elsewhere: what it is given, and the lines that it answers."""

from __future__ import annotations

import select
import time

from stackctl.engines.wire import MOST_WAITING, Session
from stackctl.errors import JobFailed

_BEAT_SECONDS = 30.0
_MOST_SAID = 4096


class Exchange:
    """What goes to a session and comes from it, in turn.

    Args:
        patience: Seconds for which nothing may move.
    """

    def __init__(self, session: Session, patience: float) -> None:
        self._session, self._patience = session, patience
        self._lines, self._said = bytearray(), bytearray()

    def put(self, data: bytes) -> None:
        """Give it input, and wait while too much of that is under way.

        Raises:
            JobFailed: It has ended, and says why; or nothing moves.
        """
        self._session.send(data)
        while self._session.wire.waiting > MOST_WAITING:
            self._move()

    def line(self) -> bytes:
        """The next line of its output, without its end; raises as `put`."""
        while b"\n" not in self._lines:
            self._move()
        line, _, rest = bytes(self._lines).partition(b"\n")
        self._lines = bytearray(rest)
        return line

    def _move(self) -> None:
        wire, since = self._session.wire, time.monotonic()
        while True:
            targets = [wire] if wire.waiting else []
            readable, writable, _ = select.select([wire], targets, [], 0.0 if wire.ready else _BEAT_SECONDS)
            if readable or writable or wire.ready:
                break
            if time.monotonic() - since > self._patience:
                raise JobFailed("the connection to the pod is open, and nothing moves")
            self._session.beat()
        if writable:
            wire.flush()
        if readable or wire.ready:
            data = wire.read()
            if data == b"":
                raise self._ended()
            for kind, output in self._session.decode(data or b""):
                if kind == 1:
                    self._lines += output
                else:
                    self._said = (self._said + output)[-_MOST_SAID:]

    def _ended(self) -> JobFailed:
        said = (self._said or self._lines).decode(errors="replace").strip().splitlines()
        if not said:
            said = [f"the program there ended with exit code {self._session.exit_code()}"]
        return JobFailed(said[-1])
