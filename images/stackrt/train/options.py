"""Options of the GPT trainer: presets as a table, given options over them, checks as a list.

Standard library only: a mistyped option must cost a tenth of a second, not the import of torch.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackrt.train import models, paths, tracking
from stackrt.train.command_line import DEFAULT_TEXT, Parser, Rule, flag, refuse, shared_rules
from stackrt.train.errors import BadInputError
from stackrt.train.option_table import OptionTable

BYTES = 256  # ids a byte-level vocabulary needs
TOKENIZERS = ("byte", "bpe")  # any other is the folder that has it, of --init


@dataclass(frozen=True)
class Options:
    """Everything a run depends on, apart from the ranks and the device."""

    preset: str
    out: Path
    # text
    data: tuple[Path, ...]
    tokenizer: str
    vocab_size: int
    val_fraction: float
    # model
    init: str
    layers: int
    heads: int
    width: int
    context: int
    dropout: float
    # training
    steps: int
    seed: int
    batch_size: int
    grad_accum: int
    lr: float
    min_lr: float
    warmup: int
    weight_decay: float
    clip: float
    dtype: str
    threads: int
    # reports and checkpoints
    log_every: int
    eval_every: int
    eval_tokens: int
    checkpoint_every: int
    keep: int
    resume: str
    sample_tokens: int
    track: str
    export: str


COMMON: dict[str, Any] = {
    "data": (DEFAULT_TEXT,), "val_fraction": 0.05, "seed": 0, "grad_accum": 1, "weight_decay": 0.1, "clip": 1.0,
    "threads": 0, "keep": 2, "resume": "auto",
    "track": "", "init": "", "export": "",
}  # fmt: skip

# One row an option, one column a preset. `tiny` is sized for four ranks on two cores in about a minute; `small` is
# nanoGPT's character model; the last two are GPT-2 as published (Radford et al. 2019), trained with nanoGPT's settings.
_NAMES = ("tiny", "small", "gpt2", "gpt2-medium")
_TABLE: dict[str, tuple[Any, Any, Any, Any]] = {
    "layers":           (3,      6,      12,        24),
    "heads":            (4,      6,      12,        16),
    "width":            (128,    384,    768,       1024),
    "context":          (64,     256,    1024,      1024),
    "tokenizer":        ("byte", "byte", "bpe",     "bpe"),
    "vocab_size":       (256,    256,    50257,     50257),
    "dropout":          (0.0,    0.2,    0.0,       0.0),
    "batch_size":       (8,      16,     12,        8),
    "steps":            (400,    3000,   20000,     20000),
    "lr":               (4e-3,   1e-3,   6e-4,      3e-4),
    "min_lr":           (4e-4,   1e-4,   6e-5,      3e-5),
    "warmup":           (20,     100,    700,       700),
    "dtype":            ("fp32", "fp32", "bf16",    "bf16"),
    "log_every":        (10,     10,     10,        10),
    "eval_every":       (50,     250,    500,       500),
    "eval_tokens":      (65536,  65536,  1 << 20,   1 << 20),
    "checkpoint_every": (100,    500,    1000,      1000),
    "sample_tokens":    (400,    500,    256,       256),
}  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    name: {option: row[column] for option, row in _TABLE.items()} for column, name in enumerate(_NAMES)
}


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options; an option that is given wins over the preset.

    Raises:
        BadInputError: A value that cannot work, named together with its option.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    given = vars(_parser().parse_args(argv))
    name = given.pop("preset", "tiny")
    values = COMMON | PRESETS[name] | {"preset": name, "out": Path(os.environ.get("STACK_OUT") or "out")}
    values |= (_of_folder(given) if given.get("init") else {}) | given
    # A short run keeps a short warm-up; a short run keeps its minimum below its peak when only the peak was given.
    if "warmup" not in given:
        values["warmup"] = min(values["warmup"], values["steps"] // 10)
    if "min_lr" not in given:
        values["min_lr"] = min(values["min_lr"], values["lr"])
    options = Options(**values)
    check(options)
    return options


def _of_folder(given: dict[str, Any]) -> dict[str, Any]:
    """What the model of `--init` sets: its shape, and its tokenizer if it has one.

    Raises:
        BadInputError: It is no GPT-2, or a given option wants another shape.
    """
    folder = given["init"]
    config = models.read_config(Path(folder), f"--init {folder}")
    if config["model_type"] != "gpt2":
        raise BadInputError(
            f"--init {folder}: a {config['model_type']}, and this trainer knows GPT-2 alone; `lm` trains the others"
        )
    size = models.shape(config)
    shape = {"layers": size.layers, "heads": size.heads, "width": size.width, "vocab_size": size.vocabulary}
    for name, value in shape.items():
        if given.get(name, value) != value:
            raise BadInputError(f"{flag(name)} {given[name]}: the model of --init has {value}; leave {flag(name)} out")
    models.fits(folder, config, given.get("context", 0), 1)
    own = {"tokenizer": folder} if paths.is_file(Path(folder) / "tokenizer.json") else {}
    return {**shape, **own, "context": size.positions}


def check(options: Options) -> None:
    """Refuse values that cannot work.

    Raises:
        BadInputError: Names the first such option, its value and what is allowed.
    """
    o = options
    rules: list[Rule] = [
        *shared_rules(o, _COUNTS, _AMOUNTS),
        ("heads", o.width % max(o.heads, 1) == 0, f"must divide --width ({o.width})"),
        ("dropout", o.dropout < 1, "must be below 1"),
        (
            "vocab_size",
            o.tokenizer not in TOKENIZERS or o.vocab_size >= BYTES + (o.tokenizer == "bpe"),
            _VOCABULARY.get(o.tokenizer, ""),
        ),
        ("export", not o.export or not paths.is_file(o.export), "is a file; name a folder"),
    ]
    refuse(o, rules)
    if o.track:
        tracking.check(o.track)


_COUNTS = ("layers", "heads", "width", "steps", "batch_size", "grad_accum", "log_every", "eval_every", "eval_tokens",
           "checkpoint_every", "keep")  # fmt: skip
_AMOUNTS = ("seed", "lr", "min_lr", "warmup", "weight_decay", "clip", "dropout", "threads", "sample_tokens")
_VOCABULARY = {
    "byte": "byte tokens need 256 or more",
    "bpe": "must be 257 or more: all 256 bytes and at least one merged pair",
}


def _parser() -> argparse.ArgumentParser:
    columns = "  ".join(f"{name:>11}" for name in _NAMES)
    rows = "\n".join(f"  {flag(o):<19}" + "  ".join(f"{v!s:>11}" for v in row) for o, row in _TABLE.items())
    parser = Parser(
        prog="python -m stackrt.train.gpt",
        description="Train a GPT-2 on text, on one process or on many (under stackrt.launch or torchrun).",
        epilog=f"presets (the default is tiny; an option that is given wins):\n  {'':<19}{columns}\n{rows}\n\n"
        "environment: STACK_DEVICE=cpu|cuda|auto (default auto), STACK_OUT (default for --out),\n"
        "STACK_DEBUG=1 (tracebacks), and RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT from the launcher.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    table = OptionTable(parser, COMMON)
    add, shared = table.add, table.shared
    add("preset", str, "a set of defaults, see below", choices=_NAMES)
    shared("out")

    table.group("text")
    add("data", Path, "text files, joined in this order (default: ten plays by Shakespeare), or a folder that "
        "`prepare` has made", nargs="+", metavar="FILE")  # fmt: skip
    add("tokenizer", str, "one token a byte, or byte-pair encoding trained on the text", choices=TOKENIZERS)
    add("vocab_size", int, "rows of the embedding table; for bpe also the most tokens to learn", metavar="N")
    shared("val_fraction")

    table.group("model")
    add("init", str, "begin with the weights of this Hugging Face GPT-2, in its shape and with its tokenizer, not with "
        "random ones", metavar="DIR")  # fmt: skip
    add("layers", int, "transformer blocks", metavar="N")
    add("heads", int, "attention heads per block; must divide --width", metavar="N")
    add("width", int, "embedding width", metavar="N")
    shared("context")
    add("dropout", float, "dropout probability", metavar="P")

    table.group("training")
    shared("steps", "seed")
    add("batch_size", int, "sequences per rank per micro-step", metavar="N")
    add("grad_accum", int, "micro-steps per optimizer step", metavar="N")
    shared("lr")
    add("min_lr", float, "learning rate at the end of the cosine", metavar="X")
    shared("warmup", "weight_decay", "clip")
    add("dtype", str, "fp32, or bf16 by autocast over fp32 weights", choices=("fp32", "bf16"))
    shared("threads")

    table.group("reports and checkpoints")
    shared("log_every", "eval_every", "eval_tokens", "checkpoint_every", "keep", "resume")
    add("sample_tokens", int, "tokens of text to generate at the end", metavar="N")
    shared("track", "export")
    return parser
