"""Each check in a process of its own, so that a crash, a hang or what it leaves behind is that check's alone.

The suite forks a supervisor for a check, and the supervisor forks the check. The supervisor adopts orphans
(PR_SET_CHILD_SUBREAPER), so that when the check ends, or its time is over, everything that it started can be found
and killed, whatever session it moved to.
"""

import ctypes
import dataclasses
import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from stackrt.checks.context import Context
from stackrt.checks.registry import Check
from stackrt.checks.result import Result, failed, warned
from stackrt.signals import STOPS

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SHOWN_BYTES = 4096
"""How much of a check's last output is kept."""
FLOOD_BYTES = 16 * 2**20
"""A check that prints more is ended: it would fill a log or a disk."""
LINGER_SECONDS = 1.0
"""Helpers of a framework end by themselves when their parent has gone; they have this long."""
KILL_SECONDS = 5.0
"""A process that outlives SIGKILL this long is stuck in the kernel."""

_HELD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
"""Signals that a check's supervisor waits for."""

_prctl = ctypes.CDLL(None).prctl
CACHES = ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME")


class Running:
    """A check that has been started. `output` and `report` are file descriptors to read until they end."""

    def __init__(self, check: Check, context: Context) -> None:
        self.check = check
        self.started = time.monotonic()
        self.report, report = os.pipe()
        self.output, output = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # Blocked before the fork, or one that comes before the child's own mask would be lost in it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.report)
            os.close(self.output)
            _supervise(check, context, report, output)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(report)
        os.close(output)
        self.watch = os.pidfd_open(self.pid)
        for pipe in (self.report, self.output):
            os.set_blocking(pipe, False)
        self._lines = b""
        self._tail = b""
        self._printed = 0
        self._flooded = False

    def read(self, pipe: int) -> bool:
        """Take what one of the two pipes holds; False once there is nothing, or nothing more will come."""
        try:
            data = os.read(pipe, 2**16)
        except BlockingIOError:
            return False
        if pipe == self.report:
            self._lines += data
            return bool(data)
        self._tail = (self._tail + data)[-SHOWN_BYTES:]
        self._printed += len(data)
        if self._printed > FLOOD_BYTES and not self._flooded:
            self._flooded = True
            self.stop()
        return bool(data)

    @property
    def overdue(self) -> bool:
        """Whether its supervisor, which ends a check on time, is itself stuck."""
        return time.monotonic() - self.started > self.check.timeout + LINGER_SECONDS + 2 * KILL_SECONDS

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Have the supervisor end the check and all that it started."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> tuple[Result, float, float, list[str]]:
        """Once `watch` is readable: the result, wall and CPU seconds, and the last lines that it printed."""
        os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.started
        for pipe in (self.report, self.output):
            while self.read(pipe):
                pass
            os.close(pipe)
        os.close(self.watch)
        said: dict[str, Any] = {}
        for line in self._lines.splitlines():
            with suppress(ValueError):
                said.update(json.loads(line))
        lines = self._tail.decode(errors="replace").splitlines()[-15:]
        result = _judge(self.check, said, flooded=self._flooded)
        return result, seconds, float(said.get("cpu_seconds", 0.0)), lines


def _judge(check: Check, said: dict[str, Any], *, flooded: bool) -> Result:
    """The result of a check, from what it and its supervisor said."""
    expected = "the check ends by itself, with a result"
    code = said.get("code")
    todo = "its last lines say more; if they do not, repeat it alone: --only " + check.name
    if flooded:
        found = f"it printed more than {FLOOD_BYTES // 2**20} MB and was ended"
    elif said.get("timed_out"):
        found = f"no result within {check.timeout:g} s; it was killed"
    elif "error" in said:
        found = f"it broke off: {said['error']}"
    elif "status" in said:
        result = Result(**{field.name: said[field.name] for field in dataclasses.fields(Result)})
        left = said.get("left") or []
        if left and result.status == "pass":
            return warned(
                f"{result.found}; but it left behind what was killed since: {', '.join(left[:3])}",
                expected="everything that a check starts ends with it",
                todo="see what starts them; in training they would hold memory and GPUs",
                **result.figures,
            )
        return result
    elif code is None:
        found = "its supervisor was killed"
    elif code < 0:
        found = f"it was killed by {signal.Signals(-code).name}"
    else:
        found = f"it ended with exit code {code} and without a result"
    return failed(found, expected=expected, todo=todo)


def end_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send us this signal when our parent has died."""
    _prctl(PR_SET_PDEATHSIG, number)


def _supervise(check: Check, context: Context, report: int, output: int) -> NoReturn:
    """Run a check in a child, see it out, and end all that it started."""
    try:
        os.setsid()
        end_with_parent(signal.SIGTERM)
        if check.adopts:
            _prctl(PR_SET_CHILD_SUBREAPER, 1)
        main = os.fork()
        if main == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            _run(check, context, report, output)
        os.close(output)
        code, timed_out = _wait(main, check.timeout)
        left = _end_all(patient=not timed_out and code is not None)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = {"code": code, "timed_out": timed_out, "left": left, "cpu_seconds": used.ru_utime + used.ru_stime}
        os.write(report, json.dumps(said).encode() + b"\n")
    finally:
        os._exit(0)


def _wait(main: int, seconds: float) -> tuple[int | None, bool]:
    """Wait for a child, or until the time is over or we are told to end it; (exit code or None, time is over)."""
    deadline = time.monotonic() + seconds
    while True:
        heard = signal.sigtimedwait(_HELD, max(0.0, deadline - time.monotonic()))
        if heard is None:
            return None, True
        if heard.si_signo != signal.SIGCHLD:
            return None, False
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == main:
                    return os.waitstatus_to_exitcode(ended[1]), False


def _end_all(*, patient: bool) -> list[str]:
    """Kill every process below this one; returns the command lines of those that had to be.

    Args:
        patient: Give them a moment to end by themselves.
    """
    deadline = time.monotonic() + LINGER_SECONDS
    while patient and _reap_and_find() and time.monotonic() < deadline:
        time.sleep(0.02)
    killed: dict[int, str] = {}
    deadline = time.monotonic() + KILL_SECONDS
    while (found := _reap_and_find()) and time.monotonic() < deadline:
        # Stopped first, so that none of them can start another while the rest is killed.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                killed.setdefault(pid, _command(pid))
                with suppress(OSError):
                    os.kill(pid, number)
        time.sleep(0.01)
    return list(killed.values())


def _reap_and_find() -> list[int]:
    """Take note of children that have ended, and return the process ids of all that live below this process."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # Behind the name, which may hold anything: state, then the parent's id (proc(5)).
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[int(entry.parent.name)] = int(parent)
    below: list[int] = []
    front = {os.getpid()}
    while front:
        front = {pid for pid, parent in parents.items() if parent in front}
        below += front
    return below


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        words = ""
    return words[:80] or f"process {pid}"


def _run(check: Check, context: Context, report: int, output: int) -> NoReturn:
    """In the check's own process: make the check and say what it found."""
    code = 1
    try:
        os.setsid()
        end_with_parent()
        for number in STOPS:
            signal.signal(number, signal.SIG_DFL)
        empty = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((empty, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        faulthandler.enable(sys.stderr)
        context.scratch.mkdir()
        # What frameworks keep for the next time goes with the check: a home may not be writable.
        for name in CACHES:
            os.environ[name] = str(context.scratch / "cache")
        said: dict[str, Any]
        try:
            said = dataclasses.asdict(check.function(context))
            code = 0
        except Exception as error:
            traceback.print_exc()
            first = (str(error).splitlines() or [""])[0]
            said = {"error": f"{type(error).__name__}: {first}"}
        text = json.dumps(said, default=str).encode() + b"\n"
        while text:
            text = text[os.write(report, text) :]
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)
