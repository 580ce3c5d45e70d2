"""Who failed first, how, and where that is written."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stackrt.contract import FAILED, PACKED, Reason
from stackrt.frameworks import Sign
from stackrt.signals import STOPS

SCHEMA = 1
TERMINATION_LOG = Path("/dev/termination-log")
"""Kubernetes shows this file's content as the container's last message; it exists only there."""
TERMINATION_BYTES = 4096
"""The most that Kubernetes keeps of it."""
TERMINATION_LINE = 400
"""Characters of a rank's line, where lines must be cut to fit."""
CAUSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
"""Signals that no peer's death brings about. SIGABRT is not one: NCCL's watchdog aborts when a peer has gone."""

BY_STOP = frozenset(128 + number for number in STOPS)
"""Exit codes of launchers that were told to end. A cluster does not count them as failures."""

Report = dict[str, Any]
"""The content of failure.json; docs/launcher.md lists the fields."""


class Failure(NamedTuple):
    """One thing that went wrong, as one node saw it."""

    time: float
    """Unix seconds on node 0's clock."""
    cause: bool
    """Whether it can't be the echo of another failure."""
    exit_code: int
    """What all launchers exit with if this failure came first."""
    report: Report
    echo: bool = False
    """Whether the rank itself says that a peer was gone."""
    inferred: bool = False
    """Whether the rank still ran: it printed an exception, which it may also have caught."""


def first(failures: Iterable[Failure]) -> Failure:
    """Choose the failure that started it: the earliest real cause, else the earliest that says no peer was gone.

    A rank whose peer has died soon fails too, often before the launcher has seen the peer's end. So a death that
    cannot be an echo wins over exits that can, and among those one that does not say that it is.
    """
    return min(failures, key=lambda failure: (not failure.cause, failure.echo, failure.inferred, failure.time))


def is_cause(code: int, signalled: bool, killed: bool) -> bool:
    """Tell whether a rank's end can't be the echo of another's.

    Args:
        code: exit code, or minus a signal's number.
        signalled: whether the launcher had asked the rank to end; a crash on the way out is no cause.
        killed: whether the launcher had killed it.
    """
    if -code == signal.SIGKILL:
        return not killed
    return not signalled and -code in CAUSES


def exit_code(code: int) -> int:
    """Return a rank's exit code as a shell gives it: 128+n for signal n."""
    return code if code >= 0 else 128 - code


def launcher_code(code: int) -> int:
    """Return what launchers exit with when a rank has ended so: its own code, unless that would say: told to stop.

    A rank may end like that by itself, as what `timeout` ends does, and must not be started anew for ever.

    Args:
        code: exit code, or minus a signal's number.
    """
    own = exit_code(code)
    return FAILED if own in BY_STOP else own


def report(
    run: str, attempt: int, *, reason: Reason, code: int, sentence: str, when: float | None = None, **where: Any
) -> Report:
    """Return the content of failure.json.

    Args:
        run: the run's name.
        attempt: the attempt in force, from 1.
        reason: the kind of failure.
        code: what the launchers exit with.
        sentence: what happened, for a person.
        when: Unix seconds on node 0's clock; now if not given.
        where: any of node, rank, local_rank, host, signal, last_lines.
    """
    nowhere: Report = {"node": None, "rank": None, "local_rank": None, "host": None, "signal": None, "last_lines": []}
    when = time.time() if when is None else when
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(when)) + f".{int(when % 1 * 1000):03d}Z"
    head = {"schema_version": SCHEMA, "run": run, "attempt": attempt, "reason": reason, "sentence": sentence}
    return head | {"exit_code": code, "time": stamp} | nowhere | where


def known_cause(signs: Iterable[Sign], code: int, device: str, said: str) -> str | None:
    """Return the cause of a failure that its framework tells obscurely; None for any other.

    Args:
        signs: the framework's.
        code: exit code, or minus a signal's number.
        device: what the ranks were to use.
        said: what the rank printed.
    """
    name = signal_name(-code) if code < 0 else ""
    for sign in signs:
        if sign.signal in ("", name) and sign.device in ("", device) and re.search(sign.words, said):
            return sign.cause
    return None


def rank_sentence(
    rank: int, node: int, local_rank: int, host: str, code: int, raised: str | None = None, cause: str | None = None
) -> str:
    """Say how a rank ended.

    Args:
        raised: the exception that it was leaving with when it had to be ended.
        cause: what is known of the reason, beside what the rank says.
    """
    how = _how_it_ended(rank, node, local_rank, host, code, raised)
    return f"{how}; {cause}" if cause else how


def _how_it_ended(rank: int, node: int, local_rank: int, host: str, code: int, raised: str | None) -> str:
    who = f"rank {rank} (node {node}, local rank {local_rank}, host {host})"
    if raised is not None:
        return f"{who} failed first: it raised {raised}"
    if code >= 0:
        alone = ", though nothing had told the job to stop" if code in BY_STOP else ""
        return f"{who} failed first: it exited with code {code}{alone}"
    name = signal_name(-code)
    if -code in STOPS:
        return f"{who} failed first: it was killed by {name}, not by the launcher"
    if -code == signal.SIGKILL:
        return (
            f"{who} failed first: it was killed by SIGKILL, not by the launcher; the kernel's out-of-memory killer "
            "does this, so look at the node's memory and the job's memory limit"
        )
    if -code == signal.SIGBUS:
        return f"{who} failed first: it was killed by SIGBUS; a full /dev/shm does this, so look at its size"
    return f"{who} failed first: it was killed by {name}"


def signal_name(number: int) -> str:
    """Return SIGKILL for 9; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def write(content: Report, out: Path, termination_log: Path = TERMINATION_LOG) -> None:
    """Write failure.json atomically, a copy among the attempt's logs, and the termination log where there is one.

    Raises:
        OSError: the folder can't be written; the termination log is written first.
    """
    write_termination_log(content, termination_log)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "logs" / f"attempt-{content['attempt']}"
    if kept.is_dir():
        _write_whole(content, kept)
    _write_whole(content, out)


def _write_whole(content: Report, folder: Path) -> None:
    # Nodes may share the folder, so each needs its own temporary name.
    temporary = folder / f".failure.{os.uname().nodename}.{os.getpid()}.json"
    try:
        with temporary.open("w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / "failure.json")
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_termination_log(content: Report, path: Path = TERMINATION_LOG) -> None:
    """Write a report where Kubernetes looks for it, if the file is there, shortened to what it keeps."""
    lines = list(content["last_lines"])
    data = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    while len(data) > TERMINATION_BYTES and lines:
        # Cut long lines first, then drop the oldest.
        shorter = [line[:TERMINATION_LINE] for line in lines]
        lines = shorter if shorter != lines else lines[1:]
        data = json.dumps(content | {"last_lines": lines}, ensure_ascii=False).encode(errors="replace")
    _overwrite(path, data[:TERMINATION_BYTES])


def write_result(out: Path, network: dict[str, Any] | None = None, path: Path = TERMINATION_LOG) -> None:
    """Put a succeeded job's result.json where Kubernetes looks for a last message, packed if it must be, if that fits.

    Args:
        out: the run's folder.
        network: which network NCCL took, to be told with it; then also without a result.json.
        path: where Kubernetes looks.
    """
    result: Any = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if (out / "result.json").is_file():  # a pipe would keep us waiting for who writes into it
            result = json.loads((out / "result.json").read_bytes())
    if network is not None and isinstance(result, dict):
        result |= {"network": network}
    if result:
        data = json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        if len(data) > TERMINATION_BYTES:
            import base64
            import zlib

            data = json.dumps({PACKED: base64.b85encode(zlib.compress(data, 9)).decode()}).encode()
        if len(data) <= TERMINATION_BYTES:
            _overwrite(path, data)


def _overwrite(path: Path, data: bytes) -> None:
    """Write to a file that is there; where it is not, nobody asks for it."""
    with contextlib.suppress(OSError), path.open("r+b") as file:
        file.write(data)
        file.truncate()
