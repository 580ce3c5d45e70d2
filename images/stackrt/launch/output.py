"""Where output goes: ranks' lines to a log file and, prefixed, to the launcher's stdout, without ever waiting."""

import collections
import contextlib
import os
import select
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from stackrt.launch import nccl, raised
from stackrt.launch.environment import IS_LINUX
from stackrt.launch.loop import WRITE, Loop

LONGEST = 65_536
"""Bytes of a line that are shown in one piece; a longer line continues on the next, with the prefix again."""
FULL = 1 << 20
"""Unwritten bytes at which a sink asks its sources to pause."""
MOST = 64 << 20
"""Unwritten bytes beyond which a sink drops what comes. Only ranks that are to end get there: they are not paused."""
LAST_LINES = 30
LAST_LINE_BYTES = 1_000


class Sink:
    """A buffered, non-blocking writer to one of our standard streams: a slow reader must not stop the heartbeats."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop = loop
        self._fd, self._private = _reopened(fd)
        self._waiting: collections.deque[bytes] = collections.deque()
        self.unwritten = 0
        """Bytes that the reader has not taken."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when a full sink has room again."""
        self._watched = self._gone = False

    @property
    def full(self) -> bool:
        """Whether sources should pause."""
        return self.unwritten >= FULL

    def write(self, data: bytes) -> None:
        """Queue bytes and write as much as goes without waiting."""
        if self._gone or not data:
            return
        if self.unwritten > MOST:
            return
        if self.unwritten + len(data) > MOST:
            data += b"stackrt.launch: output left out here: its reader takes none; the log files have it\n"
        self._waiting.append(data)
        self.unwritten += len(data)
        if not self._watched:
            self._flush()

    def drain(self, patience: float) -> None:
        """Block until all is written, or until the reader has taken nothing for `patience` seconds."""
        quiet_since = time.monotonic()
        while self.unwritten and time.monotonic() - quiet_since < patience:
            before = self.unwritten
            with contextlib.suppress(OSError, ValueError):
                select.select([], [self._fd], [], 0.1)
            self._flush()
            if self.unwritten < before:
                quiet_since = time.monotonic()

    def _flush(self) -> None:
        was_full = self.full
        try:
            while self._waiting and (self._private or self._ready()):
                piece = self._waiting.popleft()
                # On a description shared with others a write may block, except for PIPE_BUF bytes after a poll.
                sent = os.write(self._fd, piece if self._private else piece[: select.PIPE_BUF])
                self.unwritten -= sent
                if sent < len(piece):
                    self._waiting.appendleft(piece[sent:])
        except BlockingIOError:
            self._waiting.appendleft(piece)
        except OSError:
            # The reader has gone (EPIPE). Training goes on; the log files have everything.
            self._gone, self.unwritten = True, 0
            self._waiting.clear()
        self._watch(bool(self._waiting))
        if was_full and not self.full:
            self.on_room()

    def _ready(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._loop.watch(self._fd, WRITE, self._flush)
        elif self._watched and not wanted:
            self._loop.unwatch(self._fd)
        self._watched = wanted


class Lines:
    """Cuts a rank's output into prefixed lines and remembers the last ones. Bytes in, bytes out."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._partial = b""
        self._last: collections.deque[bytes] = collections.deque(maxlen=LAST_LINES)
        self.exceptions, self.nccl = raised.Watch(), nccl.Watch()

    def feed(self, data: bytes) -> bytes:
        """Take output as it comes; return the lines it completes, prefixed.

        A carriage return ends a line too, so that each state of a progress bar is one.
        """
        text = self._partial + data
        held = b""
        if text.endswith(b"\r"):
            # It may be the first half of \r\n.
            text, held = text[:-1], b"\r"
        pieces = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._partial = pieces.pop() + held
        out = bytearray()
        for piece in pieces:
            out += self._line(piece)
        while len(self._partial) > LONGEST:
            out += self._line(self._partial[:LONGEST])
            self._partial = self._partial[LONGEST:]
        return bytes(out)

    def end(self) -> bytes:
        """Return what was left without a line end, as a line."""
        rest, self._partial = self._partial.rstrip(b"\r"), b""
        return self._line(rest) if rest else b""

    def last(self) -> list[str]:
        """Return the last lines, decoded, the unfinished one included."""
        lines = [*self._last, self._partial.rstrip(b"\r")] if self._partial.rstrip(b"\r") else list(self._last)
        return [line[-LAST_LINE_BYTES:].decode(errors="replace") for line in lines[-LAST_LINES:]]

    def _line(self, line: bytes) -> bytes:
        out = bytearray()
        for start in range(0, len(line), LONGEST) or (0,):
            piece = line[start : start + LONGEST]
            self._last.append(piece)
            self.exceptions.line(piece, time.time())
            self.nccl.line(piece)
            out += self._prefix + piece + b"\n"
        return bytes(out)


class Console:
    """The launcher's own messages, on stderr."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def say(self, message: str) -> None:
        """Print one line."""
        self._sink.write(f"stackrt.launch: {message}\n".encode(errors="replace"))


def standard_streams(loop: Loop) -> tuple[Sink, Sink]:
    """Return sinks for stdout and stderr; one and the same when both lead to the same place, to keep the order."""
    out = Sink(loop, 1)
    try:
        same = os.path.sameopenfile(1, 2)
    except OSError:
        same = False
    return out, out if same else Sink(loop, 2)


def drain(sinks: Iterable[Sink], patience: float = 10.0) -> None:
    """Block until the sinks are written out or their readers have stopped for `patience` seconds."""
    for sink in sinks:
        sink.drain(patience)


def _reopened(fd: int) -> tuple[int, bool]:
    """Return a descriptor that is ours alone and non-blocking, and whether that worked.

    O_NONBLOCK belongs to the open file description, which we share with the shell and with other programs of the same
    pipeline; setting it there would break them. Linux reopens pipes and terminals through /proc.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or _is_null(fd):
            return fd, True
        if IS_LINUX and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(Path(f"/proc/self/fd/{fd}"), flags), True
    except OSError:
        # Closed, or a pipe of another user: keep the shared one.
        pass
    return fd, False


def _is_null(fd: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))  # noqa: PTH116 - Path would hide the pair
    return False
