from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy, healthy_in


def framework(bench: Bench, source: str, plant: Callable[[], None] | None = None) -> Result:
    """Import a `torch` of our own: first on the path of the interpreter that is timed."""
    (bench.tmp / "torch.py").write_text(source)
    return bench.run("import-time", env={"PYTHONPATH": str(bench.tmp)}, plant=plant)


@fault("import-time", "PyTorch lacks a library", needs=("docker",))
def broken(bench: Bench) -> Result:
    return bench.sick()["import-time"]


@fault("import-time", "a warning at import")
def noisy(bench: Bench) -> Result:
    return framework(bench, "import warnings; warnings.warn('old NumPy')")


def no_time() -> None:
    from stackrt.frameworks import FRAMEWORKS

    FRAMEWORKS["torch"] = FRAMEWORKS["torch"]._replace(import_budget=0.01)


def no_patience() -> None:
    from stackrt.checks import python

    python.MOST_SECONDS = 0.001


@fault("import-time", "an import that computes for longer than it may")
def slow(bench: Bench) -> Result:
    return framework(bench, "", plant=no_time)


@fault("import-time", "an import that waits for longer than it may")
def waits(bench: Bench) -> Result:
    return framework(bench, "", plant=no_patience)


@healthy("import-time")
def quick(bench: Bench) -> Result:
    return framework(bench, "")


@fault("bytecode", "a module changed after it was compiled", needs=("docker",))
def changed(bench: Bench) -> Result:
    return bench.sick()["bytecode"]


@fault("bytecode", "bytecode of another Python")
def other_python(bench: Bench) -> Result:
    context = bench.context()
    compiled(context.site, "a.py").write_bytes(bytes(16))
    return bench.run("bytecode", context)


@fault("bytecode", "a module that was never compiled")
def never_compiled(bench: Bench) -> Result:
    context = bench.context()
    compiled(context.site, "a.py").unlink()
    return bench.run("bytecode", context)


@fault("bytecode", "a source of another hash")
def other_hash(bench: Bench) -> Result:
    context = bench.context()
    compiled(context.site, "a.py", hashed=True)
    (context.site / "a.py").write_text("x = 2\n")
    return bench.run("bytecode", context)


@healthy("bytecode")
def all_kinds(bench: Bench) -> Result:
    context = bench.context()
    compiled(context.site, "a.py")
    compiled(context.site, "b.py", hashed=True)
    (context.site / "template.py").write_text("this is {no} Python\n")
    return bench.run("bytecode", context)


def compiled(folder: Path, name: str, *, hashed: bool = False) -> Path:
    """A module and its bytecode; returns the latter's path."""
    import py_compile

    path = folder / name
    path.write_text("x = 1\n")
    mode = py_compile.PycInvalidationMode.CHECKED_HASH if hashed else py_compile.PycInvalidationMode.TIMESTAMP
    made = py_compile.compile(os.fspath(path), invalidation_mode=mode)
    assert made
    return Path(made)


healthy_in("pytorch", "import-time", "bytecode")
