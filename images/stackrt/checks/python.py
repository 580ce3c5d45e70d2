"""Does Python start the frameworks fast, and without a word?"""

import importlib.util
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from stackrt.checks.context import Context
from stackrt.checks.files import walk
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.checks.words import NO_IMAGE, REBUILD, some

IMPORT_SECONDS = {"torch": 20.0, "tensorflow": 40.0}
"""What importing may take from a cold disk on two cores; several times what a warm one takes."""


@check(
    "import-time",
    frameworks=("torch", "tensorflow"),
    timeout=120.0,
    proves="ranks start fast, and their logs begin with what matters",
    criterion="the framework imports in 20 s (torch) or 40 s (tensorflow), without a warning",
)
def import_time(context: Context) -> Result:
    """Import the framework in a fresh interpreter."""
    if context.image is None:
        return skipped(NO_IMAGE)
    name = context.image.framework
    budget = IMPORT_SECONDS[name]
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import {name}"], capture_output=True, text=True, check=False, cwd=context.scratch
    )
    seconds = time.monotonic() - begun
    lines = done.stderr.strip().splitlines()
    if done.returncode != 0:
        return failed(
            f"import {name} ended with exit code {done.returncode}: {(lines or ['it said nothing'])[-1]}",
            expected=f"import {name} works",
            todo=REBUILD,
        )
    warnings = [line for line in lines if "Warning" in line]
    if warnings:
        return warned(
            f"import {name} says: {warnings[0].strip()}",
            expected="no warning",
            todo="look for versions that fit each other",
        )
    if seconds > budget:
        return warned(
            f"import {name} took {seconds:.1f} s",
            expected=f"at most {budget:g} s",
            todo="a slow or remote disk, or bytecode that is compiled each time: see the check bytecode",
            seconds=round(seconds, 2),
        )
    return passed(f"import {name} took {seconds:.1f} s", seconds=round(seconds, 2))


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
