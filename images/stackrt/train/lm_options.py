"""Options of the trainer for sharded language models: a model's own defaults, given options over them, checks.

Standard library only: a mistyped option must cost a tenth of a second, not the import of torch.
"""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackrt.train import models, paths, sources, tracking
from stackrt.train.command_line import DEFAULT_TEXT, Parser, Rule, refuse, shared_rules
from stackrt.train.errors import BadInputError
from stackrt.train.option_table import OptionTable


@dataclass(frozen=True)
class Options:
    """Everything a run depends on, apart from the ranks and the device."""

    # model
    model: str
    init: str
    # text
    data: tuple[Path, ...]
    tokenizer: str
    unpacked: bool
    val_fraction: float
    context: int
    # adapters
    lora: int
    lora_alpha: int
    lora_targets: tuple[str, ...]
    # mesh
    replicate: int
    shard: int
    context_parallel: int
    tp: int
    ac: str
    compile: bool
    # training
    steps: int
    seed: int
    batch_size: int
    micro_batch: int
    lr: float
    min_lr: float
    warmup: int
    weight_decay: float
    clip: float
    dtype: str
    threads: int
    # reports and checkpoints
    out: Path
    log_every: int
    eval_every: int
    eval_tokens: int
    checkpoint_every: int
    keep: int
    resume: str
    save: str
    on_save_error: str
    track: str
    # instead of training, beside it, and after it
    evaluate: bool
    profile: str
    export: str
    export_adapter: str


ALL_LINEAR = "all-linear"  # peft's word for all linear layers but the output layer

# What a model without a row in models.toml gets; a preset's own row wins.
DEFAULTS: dict[str, Any] = {
    "model": "llama-tiny", "init": "", "data": (DEFAULT_TEXT,), "tokenizer": "", "unpacked": False,
    "val_fraction": 0.05, "context": 1024,
    "lora": 0, "lora_targets": (ALL_LINEAR,),
    "replicate": 1, "shard": 0, "context_parallel": 1, "tp": 1, "ac": "none", "compile": False,
    "steps": 1000, "seed": 0, "batch_size": 32, "micro_batch": 4, "lr": 3e-4, "warmup": 100,
    "weight_decay": 0.1, "clip": 1.0, "dtype": "fp32", "threads": 0,
    "log_every": 10, "eval_every": 50, "eval_tokens": 65536, "checkpoint_every": 100, "keep": 2, "resume": "auto",
    "save": "async", "on_save_error": "stop", "track": "", "evaluate": False, "profile": "", "export": "",
    "export_adapter": "",
}  # fmt: skip


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options.

    Raises:
        BadInputError: A value that cannot work, named together with its option.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    given = vars(_parser().parse_args(argv))
    model = given.get("model", DEFAULTS["model"])
    values = DEFAULTS | models.preset_settings(model) | {"out": Path(os.environ.get("STACK_OUT") or "out")} | given
    if "warmup" not in given:  # a short run keeps a short warm-up
        values["warmup"] = min(values["warmup"], values["steps"] // 10)
    values.setdefault("min_lr", values["lr"] / 10)
    values.setdefault("lora_alpha", 2 * values["lora"])
    values |= {name: tuple(values[name]) for name in ("data", "lora_targets")}
    options = Options(**values)
    check(options)
    world = os.environ.get("WORLD_SIZE", "1")
    if world.isdecimal() and int(world):  # else the ranks say so when they join
        options = on_ranks(options, int(world))
    if not models.is_hub_name(options.model):
        models.fits(options.model, models.config_of(options.model), options.context, options.tp)
    return options


def check(options: Options) -> None:
    """Refuse values that cannot work, whatever the ranks and the model are.

    Raises:
        BadInputError: Names the first such option, its value and what is allowed.
    """
    o = options
    rules: list[Rule] = [
        *shared_rules(o, _COUNTS, _AMOUNTS),
        ("profile", _window_fits(o.profile, o.steps), f"must be FROM:STEPS, such as 10:3, within {o.steps} steps"),
        *((name, not paths.is_file(getattr(o, name) or "."), "is a file; name a folder")
          for name in ("export", "export_adapter")),
        ("context_parallel", o.context % max(o.context_parallel, 1) == 0, f"must divide --context ({o.context})"),
        ("lora", not o.lora or bool(o.init), "needs --init: adapters are trained beside weights that have learned"),
        ("lora_alpha", bool(o.lora) or not o.lora_alpha, _LORA),
        ("lora_targets", bool(o.lora) or o.lora_targets == (ALL_LINEAR,), _LORA),
        ("export_adapter", bool(o.lora) or not o.export_adapter, _LORA),
        ("export", not (o.lora and o.export) or not paths.is_same(o.export, o.init),
         "holds the base, which the adapters still need; name another folder"),
        ("export_adapter", not o.export_adapter or not (o.export and paths.is_same(o.export, o.export_adapter)),
         "is also --export, where it would be loaded instead of the model; name another folder"),
        ("export_adapter", not o.export_adapter or not paths.is_there(Path(o.export_adapter, "config.json")),
         "holds a model, which would no more be loaded as it is; name another folder"),
        ("unpacked", are_dialogues(o.data) or not o.unpacked, "is for dialogues, in .jsonl"),
        ("data", len({are_dialogues([path]) for path in o.data}) == 1, "give dialogues (.jsonl) or text, not both"),
    ]  # fmt: skip
    refuse(o, rules)
    if o.track:
        tracking.check(o.track)


def on_ranks(options: Options, world_size: int) -> Options:
    """The options with `--shard` filled in, for a number of ranks.

    Raises:
        BadInputError: The mesh does not multiply to the ranks, or the batch cannot be dealt to them.
    """
    o = options
    shard = o.shard or world_size // (o.replicate * o.context_parallel * o.tp)
    if o.replicate * shard * o.context_parallel * o.tp != world_size:
        context = f"--context-parallel {o.context_parallel} x " * (o.context_parallel > 1)
        told = f"--replicate {o.replicate} x --shard {o.shard or 'the rest'} x {context}--tp {o.tp}"
        raise BadInputError(f"{told} does not make {world_size} ranks, the world size; leave --shard out to fill it in")
    readers = o.replicate * shard
    if o.batch_size % readers:
        raise BadInputError(
            f"--batch-size {o.batch_size}: must be a multiple of {readers}, the ranks that read different text "
            f"({o.replicate} x {shard})"
        )
    return replace(o, shard=shard)


def sizes(options: Options) -> dict[str, int]:
    """The mesh of the ranks."""
    return {name: getattr(options, name) for name in ("replicate", "shard", "context_parallel", "tp")}


def on_mesh(options: Options) -> str:
    """The same for a person."""
    rows = [(name, size) for name, size in sizes(options).items() if name != "context_parallel" or size > 1]
    return " x ".join(f"{name.replace('_', '-')} {size}" for name, size in rows)


def micro_batch(options: Options) -> tuple[int, int]:
    """Sequences a rank computes at once, and how often a step: the most that `--micro-batch` allows in equal parts."""
    each = options.batch_size // (options.replicate * options.shard)
    size = next(size for size in range(min(options.micro_batch, each), 0, -1) if each % size == 0)
    return size, each // size


def cures(o: Options) -> str:
    """What makes a run smaller, the cheapest first."""
    smaller = [
        (f"--micro-batch (it is {o.micro_batch})", o.micro_batch > 1),
        ("the memory of activations with --ac selective", o.ac == "none"),
        ("that of activations with --ac full", o.ac != "full"),
        ("the size of numbers with --dtype bf16", o.dtype == "fp32"),
        (f"--context (it is {o.context}), or share it with --context-parallel", True),
        ("each rank's share: use more ranks for --shard or --tp", True),
    ]
    return ", or ".join(told for told, helps in smaller if helps)


def _window_fits(window: str, steps: int) -> bool:
    found = _WINDOW.fullmatch(window)
    return not window or bool(found and int(found[1]) + int(found[2]) - 1 <= steps)


def are_dialogues(data: Sequence[Path]) -> bool:
    """Whether `--data` is JSONL, and so dialogues."""
    return all(sources.KINDS.get(path.suffix.lower()) == sources.JSONL and not paths.is_folder(path) for path in data)


_WINDOW = re.compile(r"([1-9]\d*):([1-9]\d*)")
_LORA = "needs --lora RANK"
_COUNTS = ("replicate", "context_parallel", "tp", "steps", "batch_size", "micro_batch", "log_every", "eval_every",
           "eval_tokens", "checkpoint_every", "keep")  # fmt: skip
_AMOUNTS = ("shard", "seed", "lr", "min_lr", "warmup", "weight_decay", "clip", "threads",
            "lora", "lora_alpha")  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m stackrt.train.lm",
        description="Train a causal language model that is sharded over the ranks, on one process or on many (under "
        "stackrt.launch or torchrun).",
        epilog=f"presets, shapes without weights: {', '.join(models.presets())}\n\n"
        "environment: STACK_DEVICE=cpu|cuda|auto (default auto), STACK_OUT (default for --out),\n"
        "STACK_DEBUG=1 (tracebacks), and RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT from the launcher.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    table = OptionTable(parser, DEFAULTS, of_presets=_OF_PRESETS)
    add, shared = table.add, table.shared
    shared("out")

    table.group("model")
    add("model", str, "a preset, a Hugging Face model's folder, or a hub's OWNER/NAME", metavar="MODEL")
    add("init", str, "begin with the weights of this folder or hub's name, not with random ones", metavar="MODEL")

    table.group("text")
    add("data", Path, "text files, joined in this order (default: ten plays by Shakespeare); JSONL of dialogues, of "
        "which what the assistant says is learned; or a folder that `prepare` wrote", nargs="+",
        metavar="PATH")  # fmt: skip
    add("tokenizer", str, "byte, or a folder with a tokenizer.json (default: the model's own, else byte)",
        metavar="byte|DIR")  # fmt: skip
    table.switch("unpacked", "one dialogue a row, for a model that carries on from one to the next")
    shared("val_fraction", "context")

    table.group("adapters (LoRA): the weights of --init stay, and small matrices are trained")
    add("lora", int, "rank of the adapters", metavar="RANK")
    add("lora_alpha", int, "their scale is this over the rank (default twice the rank)", metavar="N")
    add("lora_targets", str, "names of the layers that get one, such as q_proj v_proj", nargs="+", metavar="NAME")

    table.group("ranks: replicate x shard x context-parallel x tp is their number")
    add("replicate", int, "copies of the sharded model", metavar="R")
    add("shard", int, "ranks that a copy is sharded over (default: all that are left)", metavar="S")
    add("context_parallel", int, "ranks that share each sequence, for a long --context", metavar="N")
    add("tp", int, "ranks that compute each layer together, by the model's own plan", metavar="T")
    add("ac", str, "activations computed again in the backward pass", choices=("none", "selective", "full"))
    table.switch("compile", "compile each block with torch.compile")

    table.group("training")
    shared("steps", "seed")
    add("batch_size", int, "sequences in a step, over all ranks", metavar="N")
    add("micro_batch", int, "most sequences that a rank computes at once; gradients of more add up", metavar="N")
    shared("lr", "min_lr", "warmup", "weight_decay", "clip")
    add("dtype", str, "what is computed in; weights and their sums stay fp32", choices=("fp32", "bf16"))
    shared("threads")

    table.group("reports and checkpoints")
    shared("log_every", "eval_every", "eval_tokens", "checkpoint_every", "keep", "resume")
    add("save", str, "write checkpoints beside the training, or let it wait", choices=("async", "sync"))
    add("on_save_error", str, "when a checkpoint cannot be written", choices=("stop", "go-on"))
    shared("track")

    table.group("beside training")
    table.switch("evaluate", "only give loss and perplexity of the validation text, of a checkpoint or --init")
    add("profile", str, "trace these steps on each rank, such as 10:3", metavar="FROM:STEPS")
    add("export", str, "at the end, write a folder that from_pretrained loads, adapters merged", metavar="DIR")
    add("export_adapter", str, "at the end, write the adapters alone, as peft loads them", metavar="DIR")
    return parser


_OF_PRESETS = {key for preset in models.presets().values() for key in preset["train"]}
