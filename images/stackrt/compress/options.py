"""Options of `compress`. Standard library only: a mistyped option must cost a tenth of a second, not torch's import."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackrt.finished import folder
from stackrt.train.command_line import (
    DEFAULT_TEXT,
    Parser,
    Rule,
    flag,
    one_process,
    refuse,
    temporary_files,
    text_of_run,
)
from stackrt.train.errors import BadInputError
from stackrt.train.option_table import OptionTable


@dataclass(frozen=True)
class Method:
    """A way to make a model smaller.

    Attributes:
        summary: For a person.
        steps: Of training, unless `--steps` says otherwise; 0: it trains nothing.
        lr: Peak learning rate of it.
        scheme: How the weights are rounded in the end; empty: not at all.
    """

    summary: str
    steps: int = 0
    lr: float = 0.0
    scheme: str = ""


METHODS = {
    "int8": Method("weights of eight bits", scheme="int8"),
    "int8-dynamic": Method("and what is multiplied with them is rounded as it comes", scheme="int8-dynamic"),
    "int4": Method("weights of four bits, 32 to a scale", scheme="int4"),
    "qat": Method("trained to be rounded to four bits", 100, 5e-4, "int4"),
    "fp16": Method("numbers of two bytes"),
    "bf16": Method("numbers of two bytes, with the range of four"),
    "prune": Method("the smallest weights of each matrix set to zero, the others trained on", 150, 1e-3),
    "prune-structured": Method("the weakest inner neurons taken out, the others trained on", 150, 1e-3),
    "distill": Method("a smaller model trained to say what this one says", 400, 4e-3),
}


@dataclass(frozen=True)
class Options:
    """Everything the outcome depends on."""

    model: Path
    out: Path
    method: tuple[str, ...]
    # text
    data: tuple[Path, ...]
    val_fraction: float
    context: int
    eval_tokens: int
    # training
    steps: int
    lr: float
    min_lr: float
    warmup: int
    weight_decay: float
    clip: float
    batch_size: int
    seed: int
    threads: int
    # methods
    amount: float
    temperature: float
    mix: float
    student_layers: int
    student_width: int
    student_heads: int
    alone: bool
    # table
    repeats: int


DEFAULTS: dict[str, Any] = {
    "method": ("int8",), "data": (), "val_fraction": 0.0, "context": 0, "eval_tokens": 0,
    "steps": 0, "lr": 0.0, "min_lr": 0.0, "warmup": 0, "weight_decay": 0.1, "clip": 1.0, "batch_size": 16, "seed": 0,
    "threads": 0, "amount": 0.5, "temperature": 1.0, "mix": 0.9, "student_layers": 0, "student_width": 0,
    "student_heads": 0, "alone": False, "repeats": 50,
}  # fmt: skip
# Where neither an option nor the run that made the model says it.
_TEXT: dict[str, Any] = {"data": (str(DEFAULT_TEXT),), "val_fraction": 0.05, "eval_tokens": 65536}


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options; what of the text is not given is read from the model's run.

    Raises:
        BadInputError: A value that cannot work, or a model that cannot be opened.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    given = vars(_parser().parse_args(argv))
    out = {"out": Path(os.environ.get("STACK_OUT") or "out")}
    o = Options(**{**DEFAULTS, **out, **given, "method": tuple(dict.fromkeys(given.get("method", ("int8",))))})
    check(o, given)
    one_process("compress")
    temporary_files()
    found = folder.find(o.model)
    if found.kind == "keras" or found.workload in folder.PICTURE_RUNS:
        raise BadInputError(f"--model {o.model}: is a Keras model: use `stackctl run compress-keras`")
    if found.about.get("scheme"):
        raise BadInputError(f"--model {o.model}: is rounded to integers already; name the model it was made from")
    folder.see_that_kept(o.model, o.out, ("original", *o.method))
    known = {key: found.options[key] for key in _TEXT if found.options.get(key)}
    text: dict[str, Any] = {**_TEXT, **known, **{key: getattr(o, key) for key in _TEXT if getattr(o, key)}}
    context = o.context or int(found.options.get("context") or 0)
    return replace(o, **{**text, "data": text_of_run(map(str, text["data"])), "context": context})


def check(o: Options, given: dict[str, Any]) -> None:
    """Refuse values that cannot work.

    Raises:
        BadInputError: Names the first such option, its value and what is allowed.
    """
    rules: list[Rule] = [
        *((name, name not in given or getattr(o, name) >= 1, "must be 1 or more") for name in _COUNTS),
        *((name, 0 <= getattr(o, name) < math.inf, "must be 0 or more") for name in _AMOUNTS),
        ("amount", 0 < o.amount < 1, "must be more than 0 and less than 1: a model without weights computes nothing"),
        ("temperature", 0 < o.temperature < math.inf, "must be more than 0"),
        ("mix", 0 <= o.mix <= 1, "must be from 0 (the text alone) to 1 (the teacher alone)"),
        ("lr", "lr" not in given or 0 < o.lr < math.inf, "must be more than 0"),
        ("context", "context" not in given or o.context >= 2, "must be 2 or more"),
        ("val_fraction", "val_fraction" not in given or 0 < o.val_fraction < 1, "must be between 0 and 1"),
        ("seed", o.seed < 2**32, "must be below 4294967296"),
    ]
    refuse(o, rules)
    if "distill" not in o.method:
        for name in ("student_layers", "student_width", "student_heads", "alone"):
            if name in given:
                raise BadInputError(f"{flag(name)}: is of --method distill, which is not asked for")


def training(o: Options, method: str) -> Options:
    """The options with the method's own length and rate of training filled in."""
    own = METHODS[method]
    steps, lr = o.steps or own.steps, o.lr or own.lr
    return replace(o, steps=steps, lr=lr, min_lr=lr / 10, warmup=min(20, steps // 10))


_COUNTS = ("steps", "batch_size", "eval_tokens", "repeats", "student_layers", "student_width", "student_heads")
_AMOUNTS = ("seed", "weight_decay", "clip", "threads")


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<18}{method.summary}" for name, method in METHODS.items())
    parser = Parser(
        prog="python -m stackrt.compress",
        description="Make a finished language model smaller, and show what it cost: size, loss and latency.",
        epilog=f"methods:\n{rows}\n\nenvironment: STACK_OUT (default for --out), STACK_DEBUG=1 (tracebacks).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    table = OptionTable(parser, DEFAULTS, untold=("method", "alone"))
    add, shared = table.add, table.shared
    add("model", Path, "folder of a finished gpt or lm run, or of a Hugging Face export", required=True, metavar="DIR")
    add("method", str, "one or more of the methods below (default int8)", nargs="+", choices=list(METHODS),
        metavar="METHOD")  # fmt: skip
    add("out", Path, "folder for the models, a folder each, and result.json (default $STACK_OUT, else ./out)",
        metavar="DIR")  # fmt: skip
    table.group("text to train on and to measure with; what is not given is as the run had it")
    add("data", Path, "text files, or a folder that `prepare` wrote", nargs="+", metavar="PATH")
    shared("val_fraction", "context", "eval_tokens")
    table.group("training, for the methods that train")
    add("steps", int, "optimizer steps (default: the method's)", metavar="N")
    add("lr", float, "peak learning rate (default: the method's)", metavar="X")
    add("batch_size", int, "sequences a step", metavar="N")
    shared("weight_decay", "clip")
    add("seed", int, "seed of a student's first weights and of the data order (default 0)", metavar="N")
    add("threads", int, "CPU threads (default $OMP_NUM_THREADS, else all)", metavar="N")
    table.group("methods")
    add("amount", float, "share of weights, or of inner neurons, that pruning takes", metavar="F")
    add("temperature", float, "distill: what both models' logits are divided by", metavar="T")
    add("mix", float, "distill: the teacher's share of the loss; the rest is the text's", metavar="F")
    add("student_layers", int, "distill: blocks of the student (default: half)", metavar="N")
    add("student_width", int, "distill: its width (default: half)", metavar="N")
    add("student_heads", int, "distill: its attention heads (default: as wide as the teacher's)", metavar="N")
    table.switch("alone", "distill: also train the same student without the teacher")
    table.group("table")
    add("repeats", int, "forward passes that a latency is measured by", metavar="N")
    return parser
