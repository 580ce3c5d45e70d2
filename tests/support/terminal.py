"""A command at a terminal of its own, and what a person types and sees there."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.commands import hear_signals

PATIENCE = 60.0


class Terminal:
    """A terminal with a command."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self._ours, self.process, self.seen = ours, process, ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def sees(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until a text has been printed; it and what came before is then forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.seen!r}"
            assert self._read(left), f"ended without {text!r}: {self.seen!r}"
        self.seen = self.seen.partition(text)[2]

    def ended(self, seconds: float = PATIENCE) -> int:
        """Its exit code, once it has printed all."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            pass
        return self.process.wait(seconds)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        with suppress(OSError):  # the command has closed its side
            data = os.read(self._ours, 65_536)
            self.seen += data.decode(errors="replace")
            return bool(data)
        return False


def _take_terminal() -> None:
    """For a child to run before exec: its standard input becomes its session's terminal, whose Ctrl-C it hears."""
    hear_signals()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def terminal(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, size: tuple[int, int]) -> Iterator[Terminal]:
    """A command at a terminal of so many rows and columns; killed if the test fails before it has ended."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=_take_terminal,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            os.close(ours)
