"""Build GPU training images, run one job on processes, Compose or Kubernetes, and learn why it failed.

From Python: `from stackctl import Job, run, submit`; docs/python.md has examples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackctl.api.answers import Explanation, Node, Outcome, Status
    from stackctl.api.calls import Run, find, run, submit
    from stackctl.api.job import Job
    from stackctl.errors import InvalidInput, JobFailed, MissingHere, NameTaken, StackError, StillRunning
    from stackctl.runs.backends.base import ClusterOptions

__all__ = [
    "ClusterOptions",
    "Explanation",
    "InvalidInput",
    "Job",
    "JobFailed",
    "MissingHere",
    "NameTaken",
    "Node",
    "Outcome",
    "Run",
    "StackError",
    "Status",
    "StillRunning",
    "__version__",
    "find",
    "run",
    "submit",
]

__version__ = "0.1.0"

_MODULES = {
    "stackctl.api.answers": ("Explanation", "Node", "Outcome", "Status"),
    "stackctl.api.calls": ("Run", "find", "run", "submit"),
    "stackctl.api.job": ("Job",),
    "stackctl.errors": ("InvalidInput", "JobFailed", "MissingHere", "NameTaken", "StackError", "StillRunning"),
    "stackctl.runs.backends.base": ("ClusterOptions",),
}
"""Where the public names are: a module is imported when a name of it is used."""


if not TYPE_CHECKING:  # to which every name would be one

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                import importlib

                return getattr(importlib.import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
