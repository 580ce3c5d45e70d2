"""What the trainers' command lines share: how they parse, which values none of them takes, how a wrong one is told.

Standard library only: a mistyped option must cost a tenth of a second, not the import of torch.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, Protocol

from stackrt import signals
from stackrt.train.errors import BadInputError, complain, say_once

DEFAULT_TEXT = Path(__file__).parent / "data" / "shakespeare.txt"

Rule = tuple[str, bool, str]
"""A field of the options, whether its value can work, and what it must be."""


def text_of_run(data: Iterable[str]) -> tuple[Path, ...]:
    """The text that a run was trained on, here: the shipped one is in every stackrt, at a place of its own."""
    shipped = DEFAULT_TEXT.parts[-4:]
    return tuple(DEFAULT_TEXT if Path(name).parts[-4:] == shipped else Path(name) for name in data)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose usage error is one line, and appears once, not once a rank.

    An empty word, as `--export "$FOLDER"` gives where that is not set, would mean no export, or the working folder.
    """

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:  # of what is given, not of defaults
        if "" in arg_strings:
            raise argparse.ArgumentError(action, "is empty; give a value, or leave it out")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        say_once(f"{message}; `{self.prog} --help` lists the options")
        sys.exit(2)


class Training(Protocol):
    """The options of every trainer of a language model."""

    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def context(self) -> int: ...  # noqa: D102
    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def min_lr(self) -> float: ...  # noqa: D102
    @property
    def warmup(self) -> int: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def val_fraction(self) -> float: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102


MOST_SEQUENCES = 1 << 20
"""In a batch: more than any memory holds, and a list of them is made before anything can say so."""

MOST_THREADS = 1024
"""Of a rank: far beyond what they are good for, OpenMP ends the process."""


def check_early(parse: Callable[[Sequence[str]], object], argv: Sequence[str], needs: Sequence[str] = ()) -> None:
    """Check a command line and end the process if it is wrong; for a script, before its slow imports.

    A Ctrl-C during those ends the process at once, until `ended` runs what the script is for.

    Args:
        parse: Raises BadInputError.
        argv: The command line.
        needs: Packages that the script imports, which must be there.
    """
    try:
        parse(argv)
        if missing := [name for name in needs if find_spec(name) is None]:
            raise BadInputError(
                f"{sys.executable} has no {', '.join(missing)}; "
                "use the image, `make train-env` or `pip install '.[train]'`"
            )
    except BadInputError as error:
        sys.exit(complain(error))
    signals.end_at_once()


def shared_rules(o: Training, counts: Iterable[str], amounts: Iterable[str]) -> list[Rule]:
    """The rules of every trainer.

    Args:
        o: The options.
        counts: Fields that must be 1 or more.
        amounts: Fields that must be 0 or more, and finite.
    """
    return [
        *((name, getattr(o, name) >= 1, "must be 1 or more") for name in counts),
        *((name, 0 <= getattr(o, name) < math.inf, "must be 0 or more") for name in amounts),
        ("context", o.context >= 2, "must be 2 or more"),
        ("batch_size", o.batch_size <= MOST_SEQUENCES, f"must be {MOST_SEQUENCES} or fewer"),
        ("lr", o.lr > 0, "must be more than 0"),
        ("min_lr", o.min_lr <= o.lr, f"must not exceed --lr ({o.lr:g})"),
        ("warmup", o.warmup < o.steps, f"must be fewer than --steps ({o.steps})"),
        ("val_fraction", 0 < o.val_fraction < 1, "must be between 0 and 1, such as 0.05"),
        ("seed", o.seed < 2**32, "must be below 4294967296"),
        ("threads", o.threads <= MOST_THREADS, f"must be {MOST_THREADS} or fewer"),
    ]


def refuse(options: object, rules: Iterable[Rule]) -> None:
    """Hold options against rules.

    Raises:
        BadInputError: Names the first option that breaks one, its value and what is allowed.
    """
    for name, holds, requirement in rules:
        if not holds:  # NaN fails every comparison, so it is caught here too
            value = getattr(options, name)
            raise BadInputError(f"{flag(name)}{'' if value is True else f' {value}'}: {requirement}")


def one_process(program: str) -> None:
    """See that a program which divides nothing is not started as several ranks.

    Raises:
        BadInputError: It is.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise BadInputError(f"{program} is one process: start one rank on one node")


def same_ranks(size: int, framework: str) -> None:
    """See that a framework knows of the ranks that were started: else each would train a model of its own.

    Raises:
        BadInputError: It knows of one, and there are several.
    """
    started = os.environ.get("WORLD_SIZE") or "1"
    if size == 1 and started.isdecimal() and int(started) > 1:
        raise BadInputError(
            f"{started} ranks were started, and {framework} knows of one: start them with `--framework "
            f"{framework.lower()}`, or with STACK_FRAMEWORK={framework.lower()} for the launcher"
        )


def temporary_files() -> None:
    """See that there is a folder for them: libraries fail without one, in words of their own.

    Raises:
        BadInputError: None can be written.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise BadInputError(
            "no folder for temporary files can be written; mount one at /tmp, or name one with TMPDIR"
        ) from None


def flag(name: str) -> str:
    """The command-line form of an option's name, `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def describe(options: Any) -> dict[str, Any]:
    """A trainer's options as plain values for JSON."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
    return plain | {"out": str(options.out), "data": [str(path) for path in options.data]}
