"""A connection that is read and written without waiting, so that one loop serves both ways and a terminal besides.

Two threads may not share a TLS connection, and one that waits for either way would hold up the other.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

CHUNK = 65_536

MOST_WAITING = 1 << 20
"""Bytes that wait to be sent; beyond them nothing more should be put in."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """A socket, with TLS or without.

    Args:
        early: What was read of it already.
        hold: What must not be thrown away meanwhile.
    """

    def __init__(self, sock: socket.socket, early: bytes = b"", hold: object = None) -> None:
        sock.setblocking(False)
        self._socket, self._early, self._hold = sock, early, hold
        self._waiting = bytearray()
        self._ending = self._ended = False
        self.broken = False
        """Whether the other side takes nothing more."""

    @classmethod
    def of(cls, response: Any) -> Wire:
        """The connection that an HTTP response has left to us: urllib3's, of status 101, unread."""
        sock = response.connection.sock
        sock.setblocking(False)
        early = b""
        with contextlib.suppress(*_NOT_NOW):
            early = response._fp.fp.peek() or b""
        return cls(sock, early, response)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    @property
    def ready(self) -> bool:
        """Whether something can be read that `select` does not see."""
        return bool(self._early) or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0)

    @property
    def waiting(self) -> int:
        """Bytes that are not sent yet."""
        return len(self._waiting)

    def read(self) -> bytes | None:
        """What has come; None if nothing has, empty at the end."""
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return self._socket.recv(CHUNK)
        except _NOT_NOW:
            return None
        except OSError:
            return b""

    def put(self, data: bytes) -> None:
        """Have bytes sent, as far as they go now."""
        if not (self._ending or self.broken):
            self._waiting += data
            self.flush()

    def end(self) -> None:
        """Nothing more will be put in: the other side hears of it, and may go on sending."""
        self._ending = True
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        try:
            while self._waiting:
                del self._waiting[: self._socket.send(self._waiting[:CHUNK])]
        except _NOT_NOW:
            return
        except OSError:  # the other side has gone: reading will tell
            self._waiting.clear()
            self.broken = True
        if self._ending and not self._ended:
            self._ended = True
            with contextlib.suppress(OSError):
                # Not TLS's own farewell: Python would then read no more either.
                socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._socket.close()
        close = getattr(self._hold, "close", None)
        if close:
            with contextlib.suppress(OSError):
                close()


class Session(ABC):
    """Something that runs elsewhere, over a wire: it takes input, and gives output of two kinds and an exit code."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    @abstractmethod
    def decode(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The output in what has come: 1 or 2, for standard output or errors, and bytes."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Give it input."""

    @abstractmethod
    def end(self) -> None:
        """Its input has ended."""

    @abstractmethod
    def exit_code(self) -> int:
        """Its exit code, once its output has ended.

        Raises:
            StackError: It has not run, or it is not known how it ended.
        """

    def resize(self, rows: int, columns: int) -> None:  # noqa: B027 - nothing, where there is no terminal
        """Its terminal has another size now."""

    def beat(self) -> None:  # noqa: B027 - nothing, where nothing is between us
        """Be heard of, so that nothing between us takes the connection for dead."""

    def close(self) -> None:
        """Let go of it."""
        self.wire.close()


class Plain(Session):
    """A connection as it is, without an exit code."""

    def decode(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """All of it is output."""
        yield 1, data

    def send(self, data: bytes) -> None:
        """As it is."""
        self.wire.put(data)

    def end(self) -> None:
        """Half of the connection ends."""
        self.wire.end()

    def exit_code(self) -> int:
        """There is none."""
        return 0
