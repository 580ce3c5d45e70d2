"""Our standard streams, or our terminal, for what runs elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stackctl.engines.docker_api import write
from stackctl.engines.wire import CHUNK, MOST_WAITING, Session

_BEAT_SECONDS = 30.0


def is_terminal() -> bool:
    """Whether a person sits before our standard input and output."""
    return os.isatty(0) and os.isatty(1)


def attend(session: Session, *, tty: bool, hear: Callable[[bytes], None]) -> int:
    """Carry our standard streams to and from a session until it has ended; returns its exit code.

    Args:
        tty: It has a terminal of its own: ours only passes keys on meanwhile, and tells its size.
        hear: Is given what it prints, too.

    Raises:
        StackError: It is not known how it ended.
    """
    try:
        with _raw() if tty else contextlib.nullcontext(), _resized() if tty else contextlib.nullcontext() as resized:
            if tty:
                session.resize(*os.get_terminal_size(0)[::-1])
            _carry(session, resized, hear)
        return session.exit_code()
    finally:
        session.close()


def _carry(session: Session, resized: int | None, hear: Callable[[bytes], None]) -> None:
    wire, listening = session.wire, True
    while True:
        sources = [wire.fileno()]
        if resized is not None:
            sources.append(resized)
        if listening and wire.waiting < MOST_WAITING:
            sources.append(0)
        targets = [wire.fileno()] if wire.waiting else []
        readable, writable, _ = select.select(sources, targets, [], 0.0 if wire.ready else _BEAT_SECONDS)
        if not (readable or writable or wire.ready):
            session.beat()
        if writable:
            wire.flush()
        if resized is not None and resized in readable:
            os.read(resized, CHUNK)
            session.resize(*os.get_terminal_size(0)[::-1])
        if 0 in readable:
            listening = _typed(session)
        if wire.fileno() in readable or wire.ready:
            data = wire.read()
            if data == b"":
                return
            for kind, output in session.decode(data or b""):
                hear(output)
                write(kind, output)


def _typed(session: Session) -> bool:
    """Pass on what our standard input has; whether there may be more."""
    try:
        data = os.read(0, CHUNK)
    except OSError:  # of a terminal that has gone
        data = b""
    if data:
        session.send(data)
    else:
        session.end()
    return bool(data)


@contextmanager
def _raw() -> Iterator[None]:
    """Within the block each key goes on as it is, Ctrl-C too."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _resized() -> Iterator[int | None]:
    """Within the block, a descriptor that can be read when the terminal has another size; none in a thread."""
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def tell(_number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(told, b"!")

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(heard)
        os.close(told)
