"""Options of `export.pictures`. Standard library only: a mistyped option must not cost TensorFlow's import."""

import argparse
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackrt.finished import folder
from stackrt.pictures import known
from stackrt.train.command_line import Parser, one_process, refuse, temporary_files

FORMATS = ("savedmodel", "tflite")


@dataclass(frozen=True)
class Options:
    """Everything the outcome depends on."""

    model: Path
    to: tuple[str, ...]
    out: Path
    name: str
    version: int
    verify: int
    tolerance: float
    data: str
    cache: Path
    seed: int


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, or a model that cannot be opened.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    parser = Parser(
        prog="python -m stackrt.export.pictures",
        description="Write a finished Keras model for other programs, and see that it computes the same there.",
        epilog="formats: savedmodel is OUT/NAME/VERSION/, as TensorFlow Serving wants its models; tflite is\n"
        "OUT/NAME.tflite.\n\nenvironment: STACK_OUT (default for --out), STACK_DEBUG=1 (tracebacks).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out = Path(os.environ.get("STACK_OUT") or "out")
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="PATH", help="folder of a finished keras run, or a .keras file")
    add("--to", nargs="+", choices=FORMATS, default=["savedmodel"], metavar="FORMAT", help="savedmodel (the default), "
        "tflite, or both")  # fmt: skip
    add(
        "--out",
        type=Path,
        default=out,
        metavar="DIR",
        help="folder for what is written (default $STACK_OUT, else ./out)",
    )
    add("--name", default="model", metavar="NAME", help="the model's name where it is served (default model)")
    add("--version", type=int, default=1, metavar="N", help="its version there: a server takes the highest (default 1)")
    add("--verify", type=int, default=100, metavar="N", help="real pictures to compare the scores of, in batches of "
        "two sizes; 0: none (default 100)")  # fmt: skip
    add("--tolerance", type=float, default=1e-4, metavar="X", help="largest difference of a score that is let pass "
        "(default 0.0001)")  # fmt: skip
    add("--data", default="", metavar="SET", help="pictures to compare on (default: as the run had it)")
    add("--cache", type=Path, default=known.folder(os.environ), metavar="FOLDER", help="where fetched sets are "
        "(default $STACK_DATA, else below the user's cache)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="N", help="has no effect: nothing here is random")
    values = vars(parser.parse_args(argv))
    o = Options(**{**values, "to": tuple(dict.fromkeys(values["to"]))})
    refuse(o, [
        ("verify", o.verify == 0 or o.verify >= 8, "must be 0 (compare nothing), or 8 or more"),
        ("tolerance", 0 < o.tolerance < math.inf, "must be more than 0"),
        ("version", o.version >= 1, "must be 1 or more"),
        ("name", bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*", o.name)), "may have letters, digits, - _ and ."),
    ])  # fmt: skip
    one_process("export-keras")
    temporary_files()
    folder.find(o.model)
    folder.see_that_kept(o.model, o.out)
    return o
