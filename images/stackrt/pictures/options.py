"""The command line of the trainers of pictures. No framework in here."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from stackrt.pictures import known
from stackrt.train.command_line import Parser, refuse


@dataclass(frozen=True)
class Options:
    """Everything a run depends on, apart from the ranks; a trainer with more options has a subclass."""

    data: str
    cache: Path
    steps: int
    batch_size: int
    lr: float
    schedule: str
    seed: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    keep: int
    resume: str
    out: Path


Chosen = TypeVar("Chosen", bound=Options)


def parser(what: str) -> Parser:
    """The options that every trainer has."""
    made = Parser(description=what, allow_abbrev=False)
    made.add_argument(
        "--data",
        default=known.SHIPPED,
        metavar="SET",
        help="digits, which ship; a set that was fetched (stackctl data list); a folder of IDX files, or with a folder "
        "of pictures for each class; tfds:NAME; default: digits",
    )
    made.add_argument(
        "--cache",
        type=Path,
        default=known.folder(os.environ),
        metavar="FOLDER",
        help="where fetched sets are; default: STACK_DATA, else below the user's cache",
    )
    made.add_argument("--steps", type=int, default=120)
    made.add_argument("--batch-size", type=int, default=128, help="pictures of one step over all ranks together")
    made.add_argument("--lr", type=float, default=0.05)
    made.add_argument("--schedule", choices=("constant", "cosine"), default="constant", help="of the learning rate")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--log-every", type=int, default=20, metavar="STEPS")
    made.add_argument("--eval-every", type=int, default=0, metavar="STEPS", help="validate; 0: at the end alone")
    made.add_argument("--checkpoint-every", type=int, default=0, metavar="STEPS", help="0: at the end alone")
    made.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints left; default: 2")
    made.add_argument(
        "--resume", default="auto", metavar="auto|none|FILE", help="the checkpoint to go on from; default: the newest"
    )
    made.add_argument("--out", type=Path, default=Path(os.environ.get("STACK_OUT", "out")), metavar="FOLDER")
    return made


def read(argv: Sequence[str], made: Parser, kind: Callable[..., Chosen]) -> Chosen:
    """Read a command line by a parser that may have more options than `parser` gave it.

    Args:
        argv: The words.
        made: The parser.
        kind: The class of the options.

    Raises:
        BadInputError: A value is out of range.
    """
    o = kind(**vars(made.parse_args(argv)))
    counts, amounts = ("steps", "batch_size", "log_every", "keep"), ("eval_every", "checkpoint_every")
    refuse(
        o,
        [
            *((name, getattr(o, name) >= 1, "must be at least 1") for name in counts),
            *((name, getattr(o, name) >= 0, "must be 0 or more") for name in amounts),
            ("lr", 0 < o.lr < float("inf"), "must be above 0"),
            ("seed", 0 <= o.seed < 2**32, "must be from 0 to 4294967295"),
        ],
    )
    return o


def describe(o: Options) -> dict[str, Any]:
    """The options as plain values for JSON."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(o).items()}
