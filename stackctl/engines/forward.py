"""A port of this machine that leads elsewhere: each connection to it is carried on by a session of its own."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stackctl.engines.wire import MOST_WAITING, Plain, Session, Wire
from stackctl.errors import MissingHere, StackError

LOOPBACK = "127.0.0.1"

_CONNECT_SECONDS = 10.0
_QUIET_SECONDS, _LEFT_SECONDS = 30.0, 10.0
"""After how long without a byte a connection is to be heard of; and how long one is kept that our side has closed."""


def local(port: int) -> Session:
    """A connection to a port of this machine.

    Raises:
        MissingHere: Nobody listens there.
    """
    try:
        return Plain(Wire(socket.create_connection((LOOPBACK, port), _CONNECT_SECONDS)))
    except OSError as error:
        raise MissingHere(f"port {port} does not answer: {error.strerror or error}") from None


@contextmanager
def listening(port: int, connect: Callable[[], Session], problem: Callable[[str], None]) -> Iterator[int]:
    """Within the block, a port of this machine whose connections are carried on; gives its number.

    Args:
        port: Which; 0 for one that is free.
        connect: Makes the session of a new connection.
        problem: Is told, each reason once, why one cannot be made, or has broken.

    Raises:
        MissingHere: The port is in use.
    """
    told: set[str] = set()

    def tell(text: str) -> None:
        if text and text not in told:
            told.add(text)
            problem(text)

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((LOOPBACK, port))
        except OSError as error:
            hint = f"name another port of this machine, as {port + 1 if port < 65535 else 8080}:PORT, or 0 for any"
            raise MissingHere(f"port {port} of this machine cannot be had: {error.strerror}", hint=hint) from None
        server.listen(64)
        threading.Thread(target=_serve, args=(server, connect, tell), daemon=True).start()
        try:
            yield int(server.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, connect: Callable[[], Session], tell: Callable[[str], None]) -> None:
    def lead(guest: socket.socket) -> None:
        try:
            session = connect()
        except StackError as error:
            tell(error.message)
            guest.close()
            return
        try:
            tell(carry(Wire(guest), session))
        finally:
            guest.close()
            session.close()

    with contextlib.suppress(OSError):
        while True:
            guest, _ = server.accept()
            threading.Thread(target=lead, args=(guest,), daemon=True).start()


def carry(guest: Wire, session: Session) -> str:
    """Carry a connection until both sides have ended; returns what was said on the session's second stream."""
    wire, said, heard_at = session.wire, b"", time.monotonic()
    open_here = open_there = True
    while (open_there or guest.waiting) and not guest.broken:
        reads = [guest] if open_here and wire.waiting < MOST_WAITING else []
        if open_there and guest.waiting < MOST_WAITING:
            reads.append(wire)
        ready = wire.ready and wire in reads
        patience = 0.0 if ready else _QUIET_SECONDS if open_here else _LEFT_SECONDS
        readable, writable, _ = select.select(reads, [one for one in (guest, wire) if one.waiting], [], patience)
        for one in writable:
            one.flush()
        if guest in readable:
            open_here = _passed_on(guest, session)
        if wire in readable or ready:
            heard_at, data = time.monotonic(), wire.read()
            if data == b"":
                open_there = False
                guest.end()
            said += _answered(guest, session, data or b"")
        elif not (readable or writable):
            if not open_here and time.monotonic() - heard_at >= _LEFT_SECONDS:
                break
            session.beat()
    return said.decode(errors="replace").strip()


def _passed_on(guest: Wire, session: Session) -> bool:
    """Pass on what our side has sent; whether there may be more."""
    data = guest.read()
    if data:
        session.send(data)
    elif data == b"":
        session.end()
    return data != b""


def _answered(guest: Wire, session: Session, data: bytes) -> bytes:
    """Pass on what the other side has sent; returns what came on its second stream."""
    said = b""
    for kind, output in session.decode(data):
        if kind == 1:
            guest.put(output)
        else:
            said += output
    return said
