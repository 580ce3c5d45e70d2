"""One rank: its process, its pipe, its log file."""

import contextlib
import os
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from stackrt.launch.guard import die_with
from stackrt.launch.output import Lines
from stackrt.launch.raised import Raised, recorded

PF_EXITING = 0x4
"""A flag of a Linux process (include/linux/sched.h)."""

SAID_MOST = 256 << 10
"""Bytes at either end of a log in which a failure's cause is looked for: at the start libraries tell what they lack."""

SHELLS = ("ash", "bash", "busybox", "dash", "ksh", "sh", "zsh")


def _program(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name  # noqa: PTH115 - Path would resolve it further
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def _catches(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        mask = int(status.partition("SigCgt:")[2].split(maxsplit=1)[0], 16)
    except (OSError, ValueError, IndexError):
        return False
    return bool(mask >> (number - 1) & 1)


class Rank:
    """One process of the job, leader of its own session and process group."""

    def __init__(self, rank: int, local_rank: int, prefix: bytes, log: BinaryIO | None, error_file: Path) -> None:
        self.rank, self.local_rank, self._error_file = rank, local_rank, error_file
        with contextlib.suppress(OSError):
            error_file.unlink(missing_ok=True)  # of an earlier attempt of this number
        self.lines = Lines(prefix)
        self.log = log
        self._log_file = Path(log.name) if log is not None else None
        self.pid = self.pipe = -1
        self.code: int | None = None
        """Exit code, or minus a signal's number; None while it runs."""
        self.ended_at = 0.0
        """Unix time."""
        self.signalled = self.killed = False
        """Whether we asked it to end, and whether we made it."""
        self.group_alive = self.group_signalled = False

    def spawn(self, command: Sequence[str], env: dict[str, str], keep_to: Collection[int] = ()) -> None:
        """Start the process in a session of its own, stdin empty, stdout and stderr into one non-blocking pipe.

        Args:
            command: what to run.
            env: its whole environment.
            keep_to: CPUs that it keeps to; all that are allowed if there is none.

        Raises:
            OSError: the command can't be started.
        """
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writable,
                stderr=writable,
                env=env,
                start_new_session=True,
                # Safe: no other thread runs here any more.
                preexec_fn=die_with(os.getpid(), keep_to),  # noqa: PLW1509
            )
        except OSError:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        child.returncode = 0  # Popen must not wait for it: Ranks does, for all children at once
        self.pid, self.pipe, self.group_alive = child.pid, readable, True

    @property
    def dying(self) -> bool:
        """Whether it is on its way out already. A dying process closes its sockets, and so brings its peers down, a
        moment before its parent can see its end; a signal sent in between must not count as the reason for it.
        """
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except (OSError, ValueError):
            return False
        # The fields after the name, which is in brackets and may hold anything; flags are the ninth of all (proc(5)).
        return bool(int(stat.rpartition(")")[2].split()[6]) & PF_EXITING)

    def raised(self) -> Raised | None:
        """The exception that ended it or is about to, if it has told of one."""
        return recorded(self._error_file) or self.lines.exceptions.raised

    def said(self) -> str:
        """What it printed: the beginning and the end of its log; without one, its last lines."""
        try:
            if self._log_file is None:
                raise FileNotFoundError
            with self._log_file.open("rb") as file:
                start = file.read(SAID_MOST)
                file.seek(max(len(start), file.seek(0, os.SEEK_END) - SAID_MOST))
                return (start + file.read()).decode(errors="replace")
        except OSError:
            return "\n".join(self.lines.last())

    def shells_children(self) -> list[int]:
        """What runs in the foreground of a rank that is a shell, also below further shells; none for another program.

        A shell waits for its child before it heeds a signal, if at all, and the child does not hear of it.
        """
        found: list[int] = []
        look = [self.pid]
        while look:
            pid = look.pop()
            if _program(pid) not in SHELLS:
                continue
            below = _children(pid)
            found += below
            look += below
        return found

    def hears(self, number: int) -> bool:
        """Whether a signal is for the rank itself: a shell without a trap for it would die of it, and not its child."""
        return _program(self.pid) not in SHELLS or _catches(self.pid, number)

    def tell(self, number: int, pids: Iterable[int]) -> None:
        """Signal processes of this rank."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def ended(self, status: int) -> None:
        """Take note of the wait status."""
        self.code, self.ended_at = os.waitstatus_to_exitcode(status), time.time()

    def write_log(self, data: bytes) -> None:
        """Append to the log file.

        Raises:
            OSError: a full disk, say; there is no log file from then on.
        """
        view = memoryview(data)
        try:
            while self.log is not None and view:
                view = view[self.log.write(view) :]
        except OSError:
            self.close_log()
            raise

    def close_log(self) -> None:
        """Close the log file."""
        if self.log is not None:
            self.log.close()
            self.log = None

    def close_pipe(self) -> bytes:
        """Close the pipe and the log; return what was left without a line end, as a line."""
        os.close(self.pipe)
        self.pipe = -1
        self.close_log()
        return self.lines.end()
