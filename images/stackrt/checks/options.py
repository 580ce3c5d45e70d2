"""The command line of the suite."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from stackrt.checks.registry import NEEDS, Check
from stackrt.contract import MOST_PROCS

UNKNOWN = 3
"""Exit code of a run that could not be made."""

EPILOG = """\
examples:
  python -m stackrt.checks
  python -m stackrt.checks --only lock-match,shm-size
  python -m stackrt.checks --require gpu --json report.json

exit codes: 0 all passed; 1 warnings; 2 a check failed; 3 the suite could not run
"""


class UsageError(Exception):
    """The command line asks for something that cannot be done; `str()` is the sentence for the user."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    only: tuple[str, ...]
    tags: tuple[str, ...]
    required: frozenset[str]
    requested_gpus: int | None
    json: str
    """A file, `-` for standard output, or empty."""
    junit: str
    listing: bool
    burn: float
    seen: str
    report_only: bool
    packed: bool
    """Print the report as packed.py has it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(words: Sequence[str]) -> Options:
    """Read the command line.

    Raises:
        UsageError: It asks for something that cannot be done, a report that cannot be written among it.
    """
    parser = _Parser(
        prog="python -m stackrt.checks",
        description="Is this image, host and network fit to train?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--only", nargs="+", action="extend", default=[], metavar="NAME", help="only these checks")
    add("--tag", nargs="+", action="extend", default=[], metavar="TAG", help="only checks of these tags or subjects")
    add(
        "--require",
        nargs="+",
        action="extend",
        default=[],
        metavar="WHAT",
        help="gpu, multi-gpu, multi-node, or a number of GPUs: its absence is a failure",
    )
    add("--json", default="", metavar="FILE", help="write the report there; - for standard output")
    add("--junit", default="", metavar="FILE", help="write the report there, as JUnit XML")
    add("--list", action="store_true", help="show the checks of this image, and stop")
    add("--burn", type=float, default=0.0, metavar="SECONDS", help="load each GPU for so long, and repeat exactly")
    add("--seen", default="", metavar="JSON", help="what the container engine knows of the image (stackctl test)")
    add("--report-only", action="store_true", help="no summary, and exit with 0 whatever was found: the report says it")
    add("--packed", action="store_true", help="print the report in lines for a log (stackctl test --on kubernetes)")
    given = parser.parse_args(words)
    if not 0 <= given.burn <= 86_400:
        raise UsageError(f"--burn {given.burn:g}: must be from 0 to 86400 seconds")
    needs, gpus = required(split(given.require))
    for option, path in (("--json", given.json), ("--junit", given.junit)):
        writable(option, path)
    return Options(
        only=split(given.only),
        tags=split(given.tag),
        required=needs,
        requested_gpus=gpus,
        json=given.json,
        junit=given.junit,
        listing=given.list,
        burn=given.burn,
        seen=given.seen,
        report_only=given.report_only,
        packed=given.packed,
    )


def split(words: Sequence[str]) -> tuple[str, ...]:
    """Words that may hold several, with commas between them."""
    return tuple(part for word in words for part in word.split(",") if part)


def required(words: Sequence[str]) -> tuple[frozenset[str], int | None]:
    """What must be here, and how many GPUs."""
    needs: set[str] = set()
    gpus: int | None = None
    for word in words:
        if word.isascii() and word.isdigit() and 1 <= int(word) <= MOST_PROCS:
            gpus = int(word)
            needs |= {"gpu", "multi-gpu"} if gpus > 1 else {"gpu"}
        elif word in NEEDS[1:]:
            needs.add(word)
        else:
            known = f"{', '.join(NEEDS[1:])}, or a number of GPUs from 1 to {MOST_PROCS}"
            raise UsageError(f"--require {word}: must be {known}")
    return frozenset(needs), gpus


def see_burn(seconds: float, checks: Iterable[Check]) -> None:
    """See that a burn-in that was asked for will be made.

    Raises:
        UsageError: It is not among the checks of the run.
    """
    if seconds and "burn" not in {check.name for check in checks}:
        raise UsageError(
            f"--burn {seconds:g}: the check burn is not in this run: images with PyTorch have it, and --only or --tag, "
            "if given, must name it"
        )


def writable(option: str, path: str) -> None:
    """See now, not after a minute of checks, that a report can be written there; nothing to see where none is wanted.

    Raises:
        UsageError: It cannot; names the option and the file.
    """
    if path == "-" and option != "--json":
        raise UsageError(f"{option} -: must be a file; only --json goes to standard output")
    if path in ("", "-"):
        return
    file = Path(path)
    try:
        new = not file.exists()
        with file.open("a", encoding="utf-8"):
            pass
        if new:
            file.unlink(missing_ok=True)  # a run that breaks off leaves no empty report; nodes share the folder
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}") from None
