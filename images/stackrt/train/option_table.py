"""A command line as a table: options by their field's name, and the rows that several programs share.

Standard library only: a mistyped option must cost a tenth of a second, not the import of torch.
"""

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from stackrt.train.command_line import flag

_N, _X, _DIR = {"metavar": "N"}, {"metavar": "X"}, {"metavar": "DIR"}
_Row = tuple[Callable[[str], Any], str, Mapping[str, Any]]
_RESUME = "auto: go on from the newest good checkpoint in --out, if any; none: start anew; or a checkpoint's path"
_SHARED: dict[str, _Row] = {
    "out": (Path, "folder for everything the run writes (default $STACK_OUT, else ./out)", _DIR),
    "val_fraction": (float, "share of the text, at its end, kept for validation", {"metavar": "F"}),
    "context": (int, "tokens per sequence", _N),
    "steps": (int, "optimizer steps", _N),
    "seed": (int, "seed of initial weights, data order and dropout (default 0)", _N),
    "lr": (float, "peak learning rate", _X),
    "min_lr": (float, "learning rate at the end of the cosine (default a tenth of --lr)", _X),
    "warmup": (int, "steps of linear warm-up (at most a tenth of --steps unless given)", _N),
    "weight_decay": (float, "AdamW weight decay, on matrices only", _X),
    "clip": (float, "largest gradient norm; 0 turns clipping off", _X),
    "threads": (int, "CPU threads per rank (default 1; with one rank $OMP_NUM_THREADS, else all)", _N),
    "log_every": (int, "steps between lines of the report", _N),
    "eval_every": (int, "steps between validations", _N),
    "eval_tokens": (int, "validate on at most this many tokens", _N),
    "checkpoint_every": (int, "steps between checkpoints", _N),
    "keep": (int, "checkpoints to keep", _N),
    "resume": (str, _RESUME, {"metavar": "auto|none|PATH"}),
    "track": (str, "also send what is logged to MLflow or Weights & Biases", {"choices": ("mlflow", "wandb")}),
    "export": (str, "at the end, write a folder that from_pretrained loads", _DIR),
}  # fmt: skip


class OptionTable:
    """Fills a parser. An option's help tells its default, unless that is nothing or stands in the text already.

    Args:
        parser: To be filled.
        defaults: By field.
        untold: Fields whose text says it.
        of_presets: Fields of which a preset may have its own.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        defaults: Mapping[str, Any],
        untold: Collection[str] = ("data",),
        of_presets: Collection[str] = (),
    ) -> None:
        self._parser = parser
        self._group: argparse._ActionsContainer = parser
        self._defaults, self._untold, self._of_presets = defaults, untold, of_presets

    def group(self, title: str) -> None:
        """Begin a group: what is added from here on stands under this title."""
        self._group = self._parser.add_argument_group(title)

    def add(self, name: str, kind: Callable[[str], Any], text: str, **more: Any) -> None:
        """An option of its own; `more` is argparse's."""
        default = None if name in self._untold else self._defaults.get(name)
        default = " ".join(default) if isinstance(default, tuple) else default
        presets_own = " unless the preset has its own" if name in self._of_presets else ""
        told = f" (default {default}{presets_own})" if default else ""
        self._group.add_argument(flag(name), type=kind, help=text + told, **more)

    def switch(self, name: str, text: str) -> None:
        """An option without a value."""
        self._group.add_argument(flag(name), action="store_true", help=text)

    def shared(self, *names: str) -> None:
        """Options that mean the same in every program that has them."""
        for name in names:
            kind, text, more = _SHARED[name]
            self.add(name, kind, text, **more)
