"""Does process 1 do its duty, and are the limits wide enough?"""

import os
import resource
import signal
import time
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, warned

INITS = ("tini", "docker-init", "dumb-init", "catatonit", "systemd", "init", "pause", "s6-svscan")
STOP_SECONDS = 5.0
REAP_SECONDS = 2.0
FEW_FILES, ENOUGH_FILES = 1024, 4096
STACK_BYTES = 8 * 2**20
USE_INIT = "start the image with its own entrypoint (no --entrypoint), or with docker run --init"


@check(
    "init-signals",
    timeout=15.0,
    proves="a long job gathers no zombies, and stopping it takes no ten seconds and no SIGKILL",
    criterion="process 1 reaps orphans, and SIGTERM ends a container within 5 s",
    adopts=False,
)
def init_signals(context: Context) -> Result:
    """Leave an orphan to process 1, and see whether it takes SIGTERM; `stackctl test` also times a container's end."""
    name = Path("/proc/1/comm").read_text(encoding="utf-8").strip()
    if not _reaped(_orphan()):
        return failed(
            f"process 1 ({name}) leaves zombies: an orphan that ended {REAP_SECONDS:g} s ago is still there",
            expected="it is reaped",
            todo=USE_INIT,
        )
    if name not in INITS and not _catches_sigterm():
        return failed(
            f"process 1 ({name}) has no handler for SIGTERM, and the kernel gives process 1 no default",
            expected="SIGTERM ends the container",
            todo=USE_INIT,
        )
    seconds = context.seen.stop_seconds if context.seen else None
    if seconds is not None and seconds > STOP_SECONDS:
        return failed(
            f"a container of the image took {seconds:.1f} s to stop",
            expected=f"at most {STOP_SECONDS:g} s after SIGTERM",
            todo="see what its entrypoint does with SIGTERM",
            stop_seconds=seconds,
        )
    measured = {} if seconds is None else {"stop_seconds": seconds}
    return passed(f"process 1 ({name}) reaps orphans and takes SIGTERM", **measured)


def _orphan() -> int:
    """Start a process whose parent ends before it; returns its id."""
    readable, writable = os.pipe()
    parent = os.fork()
    if parent == 0:
        middle = os.getpid()
        if os.fork() == 0:
            while os.getppid() == middle:
                time.sleep(0.001)
            os.write(writable, str(os.getpid()).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(writable)
    return int(os.read(readable, 32))


def _reaped(pid: int) -> bool:
    """Whether a process that has ended goes away in time."""
    deadline = time.monotonic() + REAP_SECONDS
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


def _catches_sigterm() -> bool:
    status = dict(line.split(":", 1) for line in Path("/proc/1/status").read_text(encoding="utf-8").splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


@check(
    "ulimits",
    timeout=5.0,
    proves="loaders, sockets and pinned memory do not run into a limit hours into a job",
    criterion="nofile >= 1024 (a warning below 4096), stack >= 8 MiB, memlock unlimited if memory is pinned",
    parallel=True,
)
def ulimits(context: Context) -> Result:
    """Read the limits that ranks will inherit."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    figures = {"nofile": files, "stack_bytes": stack, "memlock_bytes": locked}
    wide = {name: "unlimited" if value == resource.RLIM_INFINITY else value for name, value in figures.items()}
    if files not in (resource.RLIM_INFINITY,) and files < FEW_FILES:
        return failed(
            f"only {files} open files", expected=f"{FEW_FILES} or more", todo="docker run --ulimit nofile=65536", **wide
        )
    pins = context.gpus > 0 or (context.root / "sys/class/infiniband").is_dir()
    rows = {
        f"{files} open files": (files, ENOUGH_FILES, "--ulimit nofile=65536"),
        f"a stack of {stack // 1024} KiB": (stack, STACK_BYTES, "--ulimit stack=67108864"),
    }
    if pins:
        rows[f"{locked // 1024} KiB of locked memory"] = (locked, 2**63, "--ulimit memlock=-1")
    low = {what: fix for what, (value, least, fix) in rows.items() if value != resource.RLIM_INFINITY and value < least}
    if low:
        return warned(
            ", ".join(low),
            expected=f"{ENOUGH_FILES} open files, 8 MiB of stack, and unlimited locked memory where memory is pinned",
            todo="docker run " + " ".join(low.values()),
            **wide,
        )
    return passed(", ".join(f"{name} {value}" for name, value in wide.items()), **wide)
