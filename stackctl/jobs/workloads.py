"""The reference jobs, read from workloads.toml."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import msgspec

from stackctl.errors import InvalidInput, did_you_mean


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One reference job: what it runs, in which image, and which packages it needs outside an image."""

    summary: str
    command: tuple[str, ...]
    image: str
    framework: str
    needs: tuple[str, ...] = ()
    alone: bool = False
    """Whether it is one process, which takes all GPUs of its node."""
    data: bool = False
    """Whether it reads data sets of `stackctl data`."""


def load() -> dict[str, Workload]:
    """Every workload by name."""
    text = (Path(__file__).parent / "workloads.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, Workload])


@functools.cache
def alone() -> frozenset[str]:
    """Those that are one process."""
    return frozenset(name for name, row in load().items() if row.alone)


def find(name: str) -> Workload:
    """One workload.

    Raises:
        InvalidInput: There is none of that name.
    """
    rows = load()
    if name not in rows:
        command = f"python {name}" if name.endswith(".py") else name
        hint = f"{did_you_mean(name, rows)}\n  a command of your own goes behind `--`, as in `-- {command}`"
        raise InvalidInput(f"no workload is named {name!r}", hint=hint)
    return rows[name]
