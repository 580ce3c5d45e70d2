"""Every check by its name: what it needs, what it proves, and the function that makes it."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from stackrt.checks.context import Context
from stackrt.checks.result import Result
from stackrt.frameworks import FRAMEWORKS

SUBJECTS = (
    "lock",
    "libraries",
    "python",
    "filesystem",
    "process",
    "image",
    "pytorch",
    "pytorch_gpu",
    "tensorflow",
    "horovod",
    "mpi",
    "launcher",
    "cuda",
    "gpu_health",
    "bandwidth",
    "nccl",
    "network",
)
"""The modules that hold checks, in the order of the report."""

NEEDS = ("cpu", "gpu", "multi-gpu", "multi-node")
PARTS = (*FRAMEWORKS, "mpi")
"""What an image may have inside that checks are for."""

Function = Callable[[Context], Result]


class UnknownNameError(Exception):
    """No check or tag has that name; `str()` is the sentence for the user."""


@dataclass(frozen=True)
class Check:
    """One check; `check` below says what each field means."""

    name: str
    function: Function
    needs: tuple[str, ...]
    tags: tuple[str, ...]
    frameworks: tuple[str, ...]
    timeout: float
    proves: str
    criterion: str
    parallel: bool
    adopts: bool

    @property
    def subject(self) -> str:
        """The module that holds it."""
        return self.function.__module__.rpartition(".")[2]


CHECKS: dict[str, Check] = {}


def check(
    name: str,
    *,
    needs: tuple[str, ...] = ("cpu",),
    tags: tuple[str, ...] = (),
    frameworks: tuple[str, ...] = (),
    timeout: float = 30.0,
    proves: str,
    criterion: str,
    parallel: bool = False,
    adopts: bool = True,
) -> Callable[[Function], Function]:
    """Register a function as a check.

    Args:
        name: Its name, unique.
        needs: All that must be here, of NEEDS; else it is skipped with the reason.
        tags: Words to choose it by, beside its subject and its needs.
        frameworks: It belongs only to images that have one of these, of PARTS; empty for every image.
        timeout: Seconds after which it is killed and has failed.
        proves: What is true when it passes.
        criterion: What it takes to pass, in a few words.
        parallel: It may run beside others: it measures no time and takes little memory.
        adopts: Orphans of its children are adopted, and killed at its end; False leaves them to PID 1.
    """
    unknown = [*set(needs) - set(NEEDS), *set(frameworks) - set(PARTS)]
    if unknown or not needs or name in CHECKS:
        raise ValueError(f"check {name!r}: its name is taken, or it needs {unknown or 'nothing'}")

    def register(function: Function) -> Function:
        CHECKS[name] = Check(name, function, needs, tags, frameworks, timeout, proves, criterion, parallel, adopts)
        return function

    return register


def load() -> dict[str, Check]:
    """Import every subject and return all checks, in the order of the report."""
    for subject in SUBJECTS:
        importlib.import_module(f"stackrt.checks.{subject}")
    return CHECKS


def belonging(checks: Iterable[Check], frameworks: frozenset[str] | None) -> list[Check]:
    """The checks that belong to an image with these frameworks; all of them where the image is not known."""
    return [
        check
        for check in checks
        if frameworks is None or not check.frameworks or frameworks.intersection(check.frameworks)
    ]


def tags_of(check: Check) -> set[str]:
    """All words that choose a check with --tag: its own tags, its subject and its needs."""
    return {*check.tags, check.subject.replace("_", "-"), *check.needs}


def select(checks: Sequence[Check], names: Sequence[str], tags: Sequence[str]) -> list[Check]:
    """The checks of these names or tags; all of them if none is given.

    Raises:
        UnknownNameError: A name or tag that no check has.
    """
    known_names = {check.name for check in checks}
    known_tags = {tag for check in checks for tag in tags_of(check)}
    for kind, given, known in (("check", names, known_names), ("tag", tags, known_tags)):
        for word in given:
            if word not in known:
                elsewhere = word in CHECKS and kind == "check"
                hint = "it belongs to other images" if elsewhere else _suggestion(word, known, kind)
                raise UnknownNameError(f"no {kind} of this image is named {word!r}; {hint}")
    if not names and not tags:
        return list(checks)
    return [check for check in checks if check.name in names or tags_of(check).intersection(tags)]


def _suggestion(word: str, known: set[str], kind: str) -> str:
    near = difflib.get_close_matches(word, known, n=2)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    return f"--list shows every {kind}" if kind == "check" else f"known: {', '.join(sorted(known))}"
