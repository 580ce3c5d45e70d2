"""One control connection: a non-blocking socket that delivers frames and sends without waiting."""

import contextlib
import socket
from collections.abc import Callable

from stackrt.launch import interfaces
from stackrt.launch.errors import WireError
from stackrt.launch.loop import READ, WRITE, Loop
from stackrt.launch.wire import LARGE, Framer, Message, Session

BACKLOG = 32 * 1024 * 1024
"""Unsent bytes at which a peer counts as gone: it has not read for a long time."""


class Connection:
    """Frames over one socket. Exactly one `on_closed` follows, unless we close it ourselves."""

    def __init__(
        self, loop: Loop, sock: socket.socket, on_frame: Callable[[bytes], None], on_closed: Callable[[str], None]
    ) -> None:
        self._loop, self._sock = loop, sock
        self._framer, self._unsent = Framer(), bytearray()
        self._session: Session | None = None
        self._on_frame, self.on_closed = on_frame, on_closed
        self.closed = self._deaf = False
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # macOS refuses it once the other end has gone, which reading then tells
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.watch(sock, READ, self._ready)

    @property
    def interface(self) -> str:
        """This machine's interface that leads to the other end; empty if that can't be told."""
        return interfaces.towards(self._sock)

    def authenticated(self, session: Session, on_message: Callable[[Message], None]) -> None:
        """From now on frames carry messages of this session; `on_frame` is not called again."""
        self._session = session
        self._framer.limit = LARGE
        self._on_frame = lambda data: on_message(session.open(data))

    def send(self, message: Message) -> None:
        """Queue a message; harmless when the connection is closed."""
        if self._session is not None and not self.closed:
            self.send_raw(self._session.seal(message))

    def send_raw(self, data: bytes) -> None:
        """Queue bytes that are framed already."""
        if self.closed or self._deaf:
            return
        self._unsent += data
        if len(self._unsent) > BACKLOG:
            self._fail("it has stopped reading")
            return
        self._flush()

    def close(self) -> None:
        """Close without a callback. What the kernel has taken is still delivered."""
        if not self.closed:
            self.closed = True
            self._loop.unwatch(self._sock)
            self._sock.close()

    def _fail(self, why: str) -> None:
        if not self.closed:
            self.close()
            # Later, so that whoever is sending right now is not called back in the middle of it.
            self._loop.after(0, lambda: self.on_closed(why))

    def _ready(self) -> None:
        if self._unsent:
            self._flush()
        if self.closed:
            return
        try:
            data = self._sock.recv(65_536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error.strerror or "connection broken")
            return
        if not data:
            self._fail("connection closed")
            return
        self._framer.feed(data)
        try:
            while not self.closed and (body := self._framer.next()) is not None:
                self._on_frame(body)
        except WireError as error:
            self._fail(str(error))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            # A peer of another version: well signed, but not what we understand.
            self._fail(f"message that this version does not understand ({error!r})")

    def _flush(self) -> None:
        try:
            with contextlib.suppress(BlockingIOError, InterruptedError):
                while self._unsent:
                    sent = self._sock.send(self._unsent[:262_144])
                    del self._unsent[:sent]
        except OSError:
            # The other end has closed. What it said before, a verdict perhaps, may still wait to be read, so the
            # reader is the one to find the end.
            self._deaf = True
            self._unsent.clear()
        self._loop.watch(self._sock, READ | WRITE if self._unsent else READ, self._ready)
