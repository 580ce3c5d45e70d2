"""Write a finished language model for other programs, and see that it computes the same there.

python -m stackrt.export --model run                                   ONNX
stackctl run export -- --model run --to onnx pt2 safetensors           three formats
stackctl run export -- --model run --verify 1000 --tolerance 1e-5      compared on more text, more strictly
"""

import os
import sys

from stackrt.export import options
from stackrt.launch import cpus
from stackrt.train import command_line

if __name__ == "__main__":
    command_line.check_early(options.parse, sys.argv[1:], ["torch", "onnx"])  # costs 0.1 s, not the import of torch

os.environ.update(cpus.sleeping_soon())  # also without a launcher

import copy
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stackrt.export import formats
from stackrt.export.options import Options
from stackrt.finished import folder
from stackrt.finished.language import LanguageModel, open_model, words_of
from stackrt.finished.replaced import replaced
from stackrt.train import experts, models, prepared, report
from stackrt.train import text as texts
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.process import ended, leave, say

FILES = {"onnx": "model.onnx", "pt2": "model.pt2", "safetensors": "safetensors", "tensorrt": "model.engine"}
BATCHES = (1, 8)


def real_inputs(o: Options, opened: LanguageModel, context: int) -> Tensor:
    """Token ids of the text's end, [inputs, context].

    Raises:
        BadInputError: There is no text, or too little.
    """
    size = models.shape(opened.config).vocabulary
    try:
        if prepared.is_prepared(o.data):
            val = prepared.load(o.data, o.val_fraction, context, o.verify * context, size)[1].val
        else:
            tokenizer = words_of(opened.tokenizer)
            val = texts.tokenize(texts.read_text(o.data), tokenizer, o.val_fraction, context).val
    except BadInputError as error:
        raise BadInputError(f"{error} (there must be text to compare on: name it by --data)") from None
    inputs = texts.validation_windows(val, context, o.verify * context).inputs.long()
    return inputs.repeat(-(-o.verify // len(inputs)), 1)[: o.verify]


def written(o: Options, name: str, opened: LanguageModel, module: torch.nn.Module, context: int) -> formats.Run:
    """Write one format; gives what computes with it."""
    path = o.out / FILES[name]
    positions = models.shape(opened.config).positions
    if name == "safetensors":
        return formats.write_safetensors(opened, path)
    with replaced(path) as aside:
        if name == "onnx":
            return formats.write_onnx(module, aside, positions)
        if name == "pt2":
            return formats.write_pt2(module, aside, positions)
        from stackrt.export import tensorrt

        source = o.out / FILES["onnx"]
        if "onnx" not in o.to:
            formats.write_onnx(module, source, positions)
        return tensorrt.write(source, aside, context)


def _see_that_it_fits(model: torch.nn.Module, path: Path) -> None:
    """See that the disk has room for the weights: PyTorch's writer ends the process where it has none."""
    needs = sum(value.numel() * value.element_size() for value in model.parameters())
    with report.writing(path):
        has = shutil.disk_usage(path.parent).free
    if has < needs:
        raise TrainerError(f"{path}: the disk is full: it has room for {has / 1e6:,.1f} MB, and the model has "
                           f"{needs / 1e6:,.1f}; choose another --out")  # fmt: skip


def run(o: Options) -> int:
    """Write each format, compare it with the original, and leave the result.

    Raises:
        TrainerError: A format computes something else.
    """
    began = time.perf_counter()
    report.prepare_folder(o.out)
    opened = open_model(o.model)
    opened.model.requires_grad_(False)
    if experts.tensors(opened.model):  # in operators that all formats have, and none of transformers' own
        opened.model.set_experts_implementation("batched_mm")  # type: ignore[operator]
    positions = models.shape(opened.config).positions
    context = o.context or min(positions, 256)
    if context > positions:
        raise BadInputError(f"--context {context}: the model has {positions:,} positions")
    inputs = real_inputs(o, opened, context) if o.verify else None
    original = formats.Logits(opened.model).eval()
    exact = original
    if next(opened.model.parameters()).dtype != torch.float32 and set(o.to) != {"safetensors"}:
        # Other programs lack operators for numbers of two bytes, and round them in ways of their own.
        exact = formats.Logits(copy.deepcopy(opened.model).float()).eval()
    rows: dict[str, dict[str, Any]] = {}
    folder.forget(o.out)
    for name in o.to:
        path = o.out / FILES[name]
        module = original if name == "safetensors" else exact
        _see_that_it_fits(module, path)
        row: dict[str, Any] = {"file": str(path)}
        with report.writing(path):
            computes = written(o, name, opened, module, context)
        row["bytes"] = sum(file.stat().st_size for file in ([path] if path.is_file() else path.glob("*")))
        if inputs is not None:
            row["difference"] = max(formats.largest_difference(computes, module, inputs, size) for size in BATCHES)
            row["inputs"], row["batches"] = len(inputs), list(BATCHES)
        rows[name] = row
        compared = f", differs by {row['difference']:.1e} at most" if inputs is not None else ""
        say(f"{name:<12}{path}: {row['bytes'] / 1e6:,.2f} MB{compared}")
    seconds = round(time.perf_counter() - began, 3)
    report.write_result(o.out / "result.json", {
        "workload": "export", "model": str(o.model), "formats": rows, "tolerance": o.tolerance, "context": context,
        "world_size": 1, "seconds": seconds,
        "options": {"to": list(o.to), "verify": o.verify, "data": list(map(str, o.data)), "context": context},
    })  # fmt: skip
    for row in rows.values():
        if not row.get("difference", 0.0) <= o.tolerance:
            raise TrainerError(
                f"{row['file']} computes something else: a logit differs by {row['difference']:.1e}, and --tolerance "
                f"is {o.tolerance:g}; do not use it"
            )
    told = f"compared on {o.verify} inputs of {context} tokens, in batches of 1 and 8" if o.verify else "not compared"
    say(f"done    in {seconds:.0f} s; {told}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    leave(main())
