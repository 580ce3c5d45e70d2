"""Options of `export`. Standard library only: a mistyped option must cost a tenth of a second, not torch's import."""

import argparse
import importlib.util
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stackrt.finished import folder
from stackrt.train.command_line import DEFAULT_TEXT, Parser, one_process, refuse, temporary_files, text_of_run
from stackrt.train.errors import BadInputError

FORMATS = {
    "onnx": "model.onnx: for ONNX Runtime, Triton, OpenVINO; any batch and length",
    "pt2": "model.pt2: what torch.export.load reads, without this program; any batch and length",
    "safetensors": "safetensors/: a Hugging Face folder, for transformers and vLLM",
    "tensorrt": "model.engine: for this machine's kind of GPU, made from the ONNX file",
}


@dataclass(frozen=True)
class Options:
    """Everything the outcome depends on."""

    model: Path
    to: tuple[str, ...]
    out: Path
    verify: int
    tolerance: float
    data: tuple[Path, ...]
    val_fraction: float
    context: int
    seed: int


def parse(argv: Sequence[str]) -> Options:
    """Turn a command line into checked options; what of the text is not given is read from the model's run.

    Raises:
        BadInputError: A value that cannot work, or a model that cannot be opened.
        SystemExit: A usage error (code 2) or `--help` (code 0), from argparse.
    """
    values = vars(_parser().parse_args(argv))
    o = Options(**{**values, "to": tuple(dict.fromkeys(values["to"])), "data": tuple(values["data"])})
    refuse(o, [
        ("verify", o.verify >= 0, "must be 0 (compare nothing) or more"),
        ("tolerance", 0 < o.tolerance < math.inf, "must be more than 0"),
        ("context", o.context == 0 or o.context >= 4, "must be 4 or more"),
        ("val_fraction", 0 < o.val_fraction < 1, "must be between 0 and 1, such as 0.05"),
    ])  # fmt: skip
    one_process("export")
    temporary_files()
    if "tensorrt" in o.to and not importlib.util.find_spec("tensorrt"):
        raise BadInputError(
            "--to tensorrt: the package tensorrt is not installed; it is on NVIDIA's own index, and needs a GPU: "
            "pip install --extra-index-url https://pypi.nvidia.com tensorrt"
        )
    found = folder.find(o.model)
    if found.kind == "keras" or found.workload in folder.PICTURE_RUNS:
        raise BadInputError(f"--model {o.model}: is a Keras model: use `stackctl run export-keras`")
    if found.about.get("scheme"):
        raise BadInputError(
            f"--model {o.model}: is rounded to integers, which the formats here do not express; name the model it was "
            "made from"
        )
    folder.see_that_kept(o.model, o.out, o.to)
    known = found.options
    data = o.data or text_of_run(known.get("data") or (str(DEFAULT_TEXT),))
    return replace(o, data=data, context=o.context or int(known.get("context") or 0))


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {name:<13}{text}" for name, text in FORMATS.items())
    parser = Parser(
        prog="python -m stackrt.export",
        description="Write a finished language model for other programs, and see that it computes the same there.",
        epilog=f"formats:\n{rows}\n\nenvironment: STACK_OUT (default for --out), STACK_DEBUG=1 (tracebacks).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out = Path(os.environ.get("STACK_OUT") or "out")
    options: list[tuple[str, dict[str, Any]]] = [
        ("--model", {"type": Path, "required": True, "metavar": "DIR",
                     "help": "folder of a finished gpt or lm run, of an export, or of what compress wrote"}),
        ("--to", {"nargs": "+", "choices": list(FORMATS), "default": ["onnx"], "metavar": "FORMAT",
                  "help": "one or more of the formats below (default onnx)"}),
        ("--out", {"type": Path, "default": out, "metavar": "DIR",
                   "help": "folder for what is written (default $STACK_OUT, else ./out)"}),
        ("--verify", {"type": int, "default": 100, "metavar": "N",
                      "help": "real inputs to compare the outputs of, in batches of two sizes; 0: none (default 100)"}),
        ("--tolerance", {"type": float, "default": 1e-4, "metavar": "X",
                         "help": "largest difference of a logit that is let pass (default 0.0001)"}),
        ("--data", {"type": Path, "nargs": "+", "default": (), "metavar": "PATH",
                    "help": "text to compare on (default: as the run had it)"}),
        ("--val-fraction", {"type": float, "default": 0.05, "metavar": "F",
                            "help": "share of the text, at its end, to compare on (default 0.05)"}),
        ("--context", {"type": int, "default": 0, "metavar": "N",
                       "help": "tokens per sequence of it (default: as the run had it)"}),
        ("--seed", {"type": int, "default": 0, "metavar": "N", "help": "has no effect: nothing here is random"}),
    ]  # fmt: skip
    for name, more in options:
        parser.add_argument(name, **more)
    return parser
