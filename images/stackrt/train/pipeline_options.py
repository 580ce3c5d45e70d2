"""Options of the pipeline-parallel trainer, and how layers become stages.

Standard library only: a mistyped option must cost a tenth of a second, not the import of torch.
"""

import argparse
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stackrt.train import models, paths
from stackrt.train.command_line import DEFAULT_TEXT, Parser, Rule, refuse, shared_rules
from stackrt.train.errors import BadInputError
from stackrt.train.option_table import OptionTable

CHUNKS = {"1f1b": 1, "interleaved": 2}
"""Stages of each rank, by schedule."""


@dataclass(frozen=True)
class Options:
    """Everything a run depends on, apart from the ranks and the device."""

    model: str
    layers: int
    data: tuple[Path, ...]
    val_fraction: float
    context: int
    schedule: str
    microbatches: int
    steps: int
    seed: int
    batch_size: int
    lr: float
    min_lr: float
    warmup: int
    weight_decay: float
    clip: float
    threads: int
    out: Path
    log_every: int
    eval_every: int
    eval_tokens: int
    checkpoint_every: int
    keep: int
    resume: str
    export: str


DEFAULTS: dict[str, Any] = {
    "model": "llama-tiny", "layers": 8, "data": (DEFAULT_TEXT,), "val_fraction": 0.05, "context": 64,
    "schedule": "1f1b", "microbatches": 4, "steps": 100, "seed": 0, "batch_size": 32, "lr": 4e-3, "warmup": 10,
    "weight_decay": 0.1, "clip": 1.0, "threads": 1, "log_every": 10, "eval_every": 50, "eval_tokens": 16384,
    "checkpoint_every": 100, "keep": 2, "resume": "auto", "export": "",
}  # fmt: skip
_COUNTS = ("layers", "microbatches", "steps", "batch_size", "threads", "log_every", "eval_every", "eval_tokens",
           "checkpoint_every", "keep")  # fmt: skip
_AMOUNTS = ("seed", "lr", "min_lr", "warmup", "weight_decay", "clip")


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, named together with its option.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    given = vars(_parser().parse_args(argv))
    values = DEFAULTS | {"out": Path(os.environ.get("STACK_OUT") or "out")} | given
    if "warmup" not in given:  # a short run keeps a short warm-up
        values["warmup"] = min(values["warmup"], values["steps"] // 10)
    values.setdefault("min_lr", values["lr"] / 10)
    options = Options(**values)
    check(options)
    world = os.environ.get("WORLD_SIZE", "1")
    if world.isdecimal() and int(world):  # else the ranks say so when they join
        split(options, int(world))
    return options


def check(o: Options) -> None:
    """Refuse values that cannot work, whatever the ranks are.

    Raises:
        BadInputError: Names the first such option, its value and what is allowed.
    """
    rules: list[Rule] = [
        *shared_rules(o, _COUNTS, _AMOUNTS),
        (
            "batch_size",
            o.batch_size % max(o.microbatches, 1) == 0,
            f"must be a multiple of --microbatches ({o.microbatches})",
        ),
        ("export", not o.export or not paths.is_file(o.export), "is a file; name a folder"),
    ]
    refuse(o, rules)
    models.fits(o.model, config_of(o), o.context, 1)


def config_of(o: Options) -> models.Config:
    """The model's configuration with the wanted number of layers.

    The output layer has weights of its own: tied to the embeddings they would be on the first rank and on the last.
    """
    return models.config_of(o.model) | {"num_hidden_layers": o.layers, "tie_word_embeddings": False}


def split(o: Options, world_size: int) -> list[range]:
    """The layers of each stage; the first stages have one more where they do not divide.

    Stage s is on rank s modulo the number of ranks.

    Raises:
        BadInputError: There are fewer layers than stages, or too few micro-batches to keep the ranks busy.
    """
    stages = world_size * CHUNKS[o.schedule]
    if o.layers < stages:
        raise BadInputError(
            f"--layers {o.layers}: {world_size} ranks are {stages} stages by --schedule {o.schedule}, and each stage "
            "needs a layer; use fewer ranks or more --layers"
        )
    if o.schedule == "interleaved" and o.microbatches % world_size:
        raise BadInputError(
            f"--microbatches {o.microbatches}: must be a multiple of the {world_size} ranks for --schedule interleaved"
        )
    each, more = divmod(o.layers, stages)
    ends = [stage * each + min(stage, more) for stage in range(stages + 1)]
    return [range(first, last) for first, last in itertools.pairwise(ends)]


def idle_share(o: Options, world_size: int) -> float:
    """The share of a step in which a rank waits for others, the bubble, if all stages take equally long.

    (p - 1) / (v m + p - 1) for p ranks, v stages a rank and m micro-batches (Narayanan et al. 2021, section 2.2).
    """
    return (world_size - 1) / (CHUNKS[o.schedule] * o.microbatches + world_size - 1)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m stackrt.train.pipeline",
        description="Train a causal language model whose layers are spread over the ranks (under stackrt.launch or "
        "torchrun; one process trains all of it).",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    table = OptionTable(parser, DEFAULTS)
    add, shared = table.add, table.shared
    shared("out")
    add("model", str, "a preset of lm, or a Hugging Face model's folder; its weights are not used", metavar="MODEL")
    add("layers", int, "layers of the model, as many as there are stages or more", metavar="N")
    add("data", Path, "text files, read as bytes (default: ten plays by Shakespeare)", nargs="+", metavar="FILE")
    shared("val_fraction", "context")
    add("schedule", str, "1f1b: a stage a rank; interleaved: two stages a rank, which wait less", choices=tuple(CHUNKS))
    add("microbatches", int, "parts of a batch that follow one another through the stages", metavar="N")
    shared("steps")
    add("seed", int, "seed of initial weights and data order (default 0)", metavar="N")
    add("batch_size", int, "sequences in a step", metavar="N")
    shared("lr", "min_lr", "warmup", "weight_decay", "clip")
    add("threads", int, "CPU threads per rank", metavar="N")
    shared("log_every", "eval_every")
    add("eval_tokens", int, "validate on about this many tokens", metavar="N")
    shared("checkpoint_every", "keep", "resume", "export")
    return parser
