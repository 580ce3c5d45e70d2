"""Options of the Keras trainer. Standard library only: a mistyped option must not cost the import of TensorFlow."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from stackrt.pictures import known
from stackrt.train.command_line import MOST_THREADS, Parser, Rule, refuse, temporary_files
from stackrt.train.errors import BadInputError

MODELS = ("cnn", "mlp")
STRATEGIES = ("one", "mirrored", "tpu")
SCHEDULES = ("cosine", "constant")
PRECISIONS = {"fp32": "float32", "bf16": "mixed_bfloat16", "fp16": "mixed_float16"}
"""What `--precision` takes, and Keras's name of that policy."""


@dataclass(frozen=True)
class Options:
    """Everything a run depends on."""

    data: str
    cache: Path
    out: Path
    model: str
    dropout: float
    strategy: str
    devices: int
    threads: int
    epochs: int
    steps: int
    batch_size: int
    lr: float
    schedule: str
    warmup: int
    precision: str
    patience: int
    seed: int
    checkpoint_every: int
    keep: int
    resume: str
    profile: str
    predict: tuple[str, ...]
    load: Path | None
    picture: Path | None
    json: bool


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, named together with its option.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    given = vars(_parser().parse_args(argv))
    options = Options(**given | {"predict": tuple(given["predict"] or ())})
    if not options.predict:
        options = replace(options, data=options.data or known.SHIPPED)
    check(options)
    temporary_files()
    return options


def check(options: Options) -> None:
    """Refuse values that cannot work.

    Raises:
        BadInputError: Names the first such option, its value and what is allowed.
    """
    o = options
    rules: list[Rule] = [
        *((name, getattr(o, name) >= 1, "must be 1 or more") for name in _COUNTS),
        *((name, 0 <= getattr(o, name) < math.inf, "must be 0 or more") for name in _AMOUNTS),
        ("dropout", o.dropout < 1, "must be below 1"),
        ("lr", 0 < o.lr < math.inf, "must be above 0"),
        ("seed", o.seed < 2**32, "must be below 4294967296"),
        ("threads", o.threads <= MOST_THREADS, f"must be {MOST_THREADS} or fewer"),
        ("profile", not o.profile or _window(o.profile) is not None, "must be FROM:STEPS, counted from 1, as in 10:5"),
        ("profile", not o.steps or profile_window(o.profile)[1] <= o.steps, f"must be within the {o.steps} steps"),
        ("devices", o.strategy != "one" or o.devices < 2, "--strategy one has one device; leave one of them out"),
        ("devices", o.strategy != "tpu" or not o.devices, "--strategy tpu takes all cores; leave one of them out"),
    ]
    refuse(o, rules)
    for name in ("load", "picture", "json"):
        if getattr(o, name) and not o.predict:
            raise BadInputError(f"--{name}: goes with --predict only")


def profile_window(wanted: str) -> tuple[int, int]:
    """The first and the last step that `--profile` names; two zeros without it."""
    return _window(wanted) or (0, 0)


def _window(wanted: str) -> tuple[int, int] | None:
    first, _, steps = wanted.partition(":")
    if not (first.isdecimal() and steps.isdecimal() and int(first) > 0 and int(steps) > 0):
        return None
    return int(first), int(first) + int(steps) - 1


def describe(o: Options) -> dict[str, Any]:
    """The options of a training as plain values for JSON."""
    left_out = ("predict", "load", "picture", "json")
    values = {name: value for name, value in asdict(o).items() if name not in left_out}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


_COUNTS = ("epochs", "batch_size", "checkpoint_every", "keep")
_AMOUNTS = ("dropout", "devices", "threads", "steps", "warmup", "patience", "seed")


def _parser() -> argparse.ArgumentParser:
    # fmt: off
    parser = Parser(
        prog="python -m stackrt.keras",
        description="Train pictures with Keras 3, on one device or all of a node; or predict with what was trained.",
        epilog="environment: STACK_DEVICE=cpu|cuda|auto (default auto), STACK_OUT (default for --out), TPU_NAME (an "
        "address for --strategy tpu).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data", default="", metavar="SET",
        help="digits, which ship; a set that was fetched (stackctl data list); a folder of IDX files, or with a folder "
        "of pictures for each class; tfds:NAME (default digits; to predict, what the model was trained on)")
    add("--cache", type=Path, default=known.folder(os.environ), metavar="DIR",
        help="where fetched sets are (default $STACK_DATA, else below the user's cache)")
    add("--out", type=Path, default=Path(os.environ.get("STACK_OUT") or "out"), metavar="DIR",
        help="folder for everything the run writes (default $STACK_OUT, else ./out)")

    add = parser.add_argument_group("model").add_argument
    add("--model", default="cnn", choices=MODELS, help="convolutions, or dense layers alone (default cnn)")
    add("--dropout", type=float, default=0.0, metavar="P", help="before the last layer (default 0)")

    add = parser.add_argument_group("devices").add_argument
    add("--strategy", default="", choices=STRATEGIES,
        help="one device, all of this machine, or a TPU (default: mirrored where there are several, else one)")
    add("--devices", type=int, default=0, metavar="N",
        help="how many to take: of the GPUs, else the CPU as N logical devices (default all GPUs, else 1)")
    add("--threads", type=int, default=0, metavar="N", help="threads of one operation (default all CPUs)")
    add("--precision", default="fp32", choices=tuple(PRECISIONS),
        help="fp32, or fp32 weights that compute in bf16 or fp16 (default fp32)")

    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=int, default=10, metavar="N", help="times through the training pictures (default 10)")
    add("--steps", type=int, default=0, metavar="N", help="end after N steps, whatever --epochs says")
    add("--batch-size", type=int, default=128, metavar="N", help="pictures of a step, over all devices (default 128)")
    add("--lr", type=float, default=0.05, metavar="X", help="peak learning rate of SGD with momentum (default 0.05)")
    add("--schedule", default="cosine", choices=SCHEDULES, help="of the learning rate, after --warmup (default cosine)")
    add("--warmup", type=int, default=0, metavar="N", help="steps in which the learning rate rises (default 0)")
    add("--patience", type=int, default=0, metavar="N",
        help="end after N epochs without a better validation loss, with the best weights (default 0: never)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, order and dropout (default 0)")

    add = parser.add_argument_group("checkpoints and profile").add_argument
    add("--checkpoint-every", type=int, default=1, metavar="N", help="epochs between checkpoints (default 1)")
    add("--keep", type=int, default=2, metavar="N", help="checkpoints to keep (default 2)")
    add("--resume", default="auto", metavar="auto|none|PATH",
        help="go on from the newest whole checkpoint in --out, start anew, or go on from this one (default auto)")
    add("--profile", default="", metavar="FROM:STEPS", help="trace these steps, counted from 1, for TensorBoard")

    add = parser.add_argument_group("prediction, in place of training").add_argument
    add("--predict", nargs="+", metavar="FILE|INDEX", help="pictures: files, or numbers of test pictures")
    add("--load", type=Path, metavar="FILE", help="model.keras, a .h5 or a SavedModel's folder (default in --out)")
    add("--picture", type=Path, metavar="FILE", help="also draw the pictures with their labels, a PNG")
    add("--json", action="store_true", help="print JSON")
    # fmt: on
    return parser
