"""Options of `compress.pictures`. Standard library only: a mistyped option must not cost TensorFlow's import."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackrt.finished import folder
from stackrt.pictures import known
from stackrt.train.command_line import Parser, one_process, refuse, temporary_files

METHODS = ("tflite", "fp16", "int8-dynamic", "int8")


@dataclass(frozen=True)
class Options:
    """Everything the outcome depends on."""

    model: Path
    out: Path
    method: tuple[str, ...]
    data: str
    cache: Path
    calibration: int
    repeats: int
    threads: int
    seed: int


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, or a model that cannot be opened.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    parser = Parser(
        prog="python -m stackrt.compress.pictures",
        description="Write a finished Keras model as TFLite files, and show what it cost: size, accuracy and latency.",
        epilog="methods: tflite keeps 32 bits; fp16 halves the weights; int8-dynamic rounds weights to eight bits;\n"
        "int8 rounds all that is computed, too.\n\n"
        "environment: STACK_OUT (default for --out), STACK_DEBUG=1 (tracebacks).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out = Path(os.environ.get("STACK_OUT") or "out")
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="PATH", help="folder of a finished keras run, or a .keras file")
    add("--method", nargs="+", choices=METHODS, default=["int8"], metavar="METHOD", help="one or more of the methods "
        "below (default int8)")  # fmt: skip
    add("--out", type=Path, default=out, metavar="DIR", help="folder for the files (default $STACK_OUT, else ./out)")
    add("--data", default="", metavar="SET", help="pictures to measure and calibrate with (default: as the run had it)")
    add("--cache", type=Path, default=known.folder(os.environ), metavar="FOLDER", help="where fetched sets are "
        "(default $STACK_DATA, else below the user's cache)")  # fmt: skip
    add("--calibration", type=int, default=200, metavar="N", help="int8: pictures of the training part by which it "
        "finds the ranges (default 200)")  # fmt: skip
    add("--repeats", type=int, default=50, metavar="N", help="passes that a latency is measured by (default 50)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads (default $OMP_NUM_THREADS, else all)")
    add("--seed", type=int, default=0, metavar="N", help="has no effect: nothing here is random")
    values = vars(parser.parse_args(argv))
    o = Options(**{**values, "method": tuple(dict.fromkeys(values["method"]))})
    refuse(o, [
        *((name, getattr(o, name) >= 1, "must be 1 or more") for name in ("calibration", "repeats")),
        ("threads", o.threads >= 0, "must be 0 or more"),
    ])  # fmt: skip
    one_process("compress-keras")
    temporary_files()
    folder.find(o.model)
    folder.see_that_kept(o.model, o.out, ("original.keras",))
    return o
