"""Does Python start the frameworks fast, and without a word?"""

import importlib.util
import os
import resource
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.files import walk
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.checks.words import NO_IMAGE, REBUILD, some
from stackrt.frameworks import FRAMEWORKS

LIBRARY = (
    "asyncio", "concurrent.futures", "ctypes", "decimal", "difflib", "email.mime.multipart", "http.server", "inspect",
    "json", "logging.config", "multiprocessing.managers", "pdb", "pydoc", "sqlite3", "statistics", "tarfile", "tomllib",
    "unittest.mock", "urllib.request", "xml.dom.minidom", "zipfile",
)  # fmt: skip
"""Modules of Python's own, with 200 more that they import: what they take tells how fast this machine imports, now."""
JUDGED = tuple(name for name, framework in FRAMEWORKS.items() if framework.import_budget)
MOST_SECONDS = 60.0
"""Wall time, on however busy a machine: a rank that starts later keeps all others waiting."""
SAMPLES = 3


@check(
    "import-time",
    frameworks=JUDGED,
    timeout=180.0,
    proves="ranks start fast, and their logs begin with what matters",
    criterion="importing the framework takes at most "
    + " or ".join(f"{FRAMEWORKS[name].import_budget:g} ({name})" for name in JUDGED)
    + f" times the CPU time of Python's own modules, and {MOST_SECONDS:g} s; it prints no warning",
)
def import_time(context: Context) -> Result:
    """Import the framework in a fresh interpreter."""
    if context.image is None:
        return skipped(NO_IMAGE)
    name = context.image.framework
    most = FRAMEWORKS[name].import_budget
    made = _import([name], context.scratch)
    own = statistics.median(_import(LIBRARY, context.scratch).cpu_seconds for _ in range(SAMPLES))
    if made.code != 0:
        return failed(
            f"import {name} ended with exit code {made.code}: {(made.lines or ['it said nothing'])[-1]}",
            expected=f"import {name} works",
            todo=REBUILD,
        )
    times = made.cpu_seconds / own
    figures = {
        "seconds": round(made.seconds, 2),
        "cpu_seconds": round(made.cpu_seconds, 2),
        "times_python": round(times, 1),
    }
    warnings = [line for line in made.lines if "Warning" in line]
    if warnings:
        return warned(
            f"import {name} says: {warnings[0].strip()}",
            expected="no warning",
            todo="look for versions that fit each other",
            **figures,
        )
    took = f"import {name} took {made.seconds:.1f} s, {made.cpu_seconds:.1f} s of CPU time"
    if times > most:
        return warned(
            f"{took}: {times:.0f} times what Python's own modules take",
            expected=f"at most {most:g} times",
            todo="see the check bytecode; what else it imports: python -X importtime",
            **figures,
        )
    if made.seconds > MOST_SECONDS:
        return warned(
            took,
            expected=f"at most {MOST_SECONDS:g} s",
            todo="it waits for a slow or remote disk, or for other work on this machine",
            **figures,
        )
    return passed(took, **figures)


@dataclass(frozen=True)
class _Import:
    """What an interpreter that only imports did. `lines` are what it wrote to standard error."""

    code: int
    lines: list[str]
    seconds: float
    cpu_seconds: float


def _import(modules: Sequence[str], folder: Path) -> _Import:
    """Import modules in a fresh interpreter."""
    argv = [sys.executable, "-P", "-c", f"import {', '.join(modules)}"]
    before, begun = _cpu_of_children(), time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
    seconds = time.monotonic() - begun
    return _Import(done.returncode, done.stderr.strip().splitlines(), seconds, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    """Seconds of all threads of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@check(
    "bytecode",
    tags=("image",),
    timeout=120.0,
    proves="no rank compiles Python again at each start",
    criterion="every module has valid bytecode",
    parallel=True,
)
def bytecode(context: Context) -> Result:
    """Compare each module's .pyc with its source, as the import system does."""
    if context.image is None:
        return skipped(NO_IMAGE)
    folders = (context.site, context.stack)
    modules = [path for folder in folders for path, _ in walk(folder) if path.endswith(".py")]
    states = [(path, state_of(path)) for path in modules]
    bad = [f"{path} ({state})" for path, state in states if state]
    if bad:
        return failed(
            f"{len(bad)} of {len(modules)} modules: {some(bad, 3)}",
            expected="a .pyc for each, made from the source that is there, by this Python",
            todo=REBUILD + "; or compile them: python -m compileall",
            modules=len(modules),
        )
    return passed(f"{len(modules)} modules are compiled", modules=len(modules))


def state_of(path: str) -> str:
    """What is wrong with a module in bytecode (PEP 552: magic, flags, time and size or a hash); empty if nothing."""
    try:
        with open(importlib.util.cache_from_source(path), "rb") as file:  # noqa: PTH123 - ten thousand of them
            head = file.read(16)
    except OSError:
        # What is not Python, a template for example, cannot be compiled; that is no fault of the image's.
        return "absent" if _compiles(path) else ""
    if head[:4] != importlib.util.MAGIC_NUMBER or len(head) < 16:
        return "of another Python"
    flags, first, second = struct.unpack("<III", head[4:])
    if not flags:
        status = os.stat(path)  # noqa: PTH116
        return "" if (first, second) == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF) else "stale"
    checked = bool(flags & 2)
    return "stale" if checked and importlib.util.source_hash(Path(path).read_bytes()) != head[8:] else ""


def _compiles(path: str) -> bool:
    try:
        compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
