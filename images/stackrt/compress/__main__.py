"""Make a finished language model smaller, by one method or several, and show what each cost.

    python -m stackrt.compress --model run                                      int8
    stackctl run compress -- --model run --method int8 int4 qat prune           a table of five models
    stackctl run compress -- --model run --method distill --alone               a student, with and without its teacher

Each model is a folder of its own that `stackrt.finished` opens; all but those of integers are also Hugging Face's.
"""

import os
import sys

from stackrt.compress import options
from stackrt.launch import cpus
from stackrt.train import command_line

if __name__ == "__main__":
    command_line.check_early(options.parse, sys.argv[1:], ["torch", "torchao"])  # costs 0.1 s, not the import of torch

os.environ.update(cpus.sleeping_soon())  # also without a launcher

import copy
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stackrt.compress import measure, table, tuning
from stackrt.compress.options import METHODS, Options
from stackrt.finished import folder, quantized
from stackrt.finished.language import LanguageModel, open_model, words_of
from stackrt.finished.replaced import replaced
from stackrt.train import experts, models, paths, prepared, report
from stackrt.train import text as texts
from stackrt.train.errors import BadInputError, TrainerError
from stackrt.train.process import ended, leave, say
from stackrt.train.ranks import pick_device
from stackrt.train.text import Batch, Corpus, mix

FORMAT = 1
ALONE = "alone"
"""The distilled student's twin that never saw the teacher."""


def load_corpus(o: Options, opened: LanguageModel) -> Corpus:
    """The text to train on and to measure with, in the model's own tokens.

    Raises:
        BadInputError: It is missing, too short, or has tokens that the model does not know.
    """
    tokenizer = words_of(opened.tokenizer)
    size = models.shape(opened.config).vocabulary
    try:
        if prepared.is_prepared(o.data):
            return prepared.load(o.data, o.val_fraction, o.context, o.eval_tokens, size)[1]
        return texts.tokenize(texts.read_text(o.data), tokenizer, o.val_fraction, o.context)
    except BadInputError as error:
        raise BadInputError(
            f"{error} (to measure with, and to train on, there must be text: name it by --data)"
        ) from None


def made(method: str, opened: LanguageModel, corpus: Corpus, o: Options) -> dict[str, nn.Module]:
    """The smaller models of a method, by the names of their folders."""
    plan = options.training(o, method)
    windows = corpus.windows(o.context, o.seed)
    # Small steps are lost in numbers of two bytes, and integers are rounded from those of four.
    kind = next(opened.model.parameters()).dtype
    model = opened.model if method == "distill" else copy.deepcopy(opened.model).float()
    if method == "distill":
        student = tuning.student_of(opened.config, o).to(next(model.parameters()).device)
        tuning.see_that_smaller(student, model)
        twin = copy.deepcopy(student) if o.alone else None
        tuning.distill(student, model, windows, plan, say)
        if twin is None:
            return {method: student.to(kind)}
        say(f"{ALONE}: the same student without its teacher")
        tuning.train(twin, tuning.token_loss, windows, plan, say)
        return {method: student.to(kind), ALONE: twin.to(kind)}
    if method == "prune":
        tuning.prune(model, windows, plan, say)
    elif method == "prune-structured":
        model = tuning.without_neurons(model, o.amount)
        tuning.train(model, tuning.token_loss, windows, plan, say)
    elif method == "qat":
        tuning.train_rounded(model, windows, plan, say)
    elif method in ("fp16", "bf16"):
        kind = torch.float16 if method == "fp16" else torch.bfloat16
    model = model.cpu()
    return {method: quantized.quantize(model, scheme) if (scheme := METHODS[method].scheme) else model.to(kind)}


def write(model: nn.Module, tokenizer: Any, path: Path, about: dict[str, Any]) -> None:
    """Write a model's folder: weights, configuration, tokenizer, and what was done.

    Raises:
        BadInputError: Something else is in its place.
        TrainerError: The disk is full or failing.
    """
    if paths.is_there(path) and not paths.is_file(path / folder.COMPRESSED):
        raise BadInputError(f"--out: {path} is there already, and is none of compress's; choose another folder")
    with report.writing(path), replaced(path) as aside, quantized.saving(aside):
        aside.mkdir()
        saver: Any = model.cpu()
        if about["scheme"]:
            quantized.save(model, aside)
            saver.config.save_pretrained(aside)
        else:
            saver.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        report.write_atomically(aside / folder.COMPRESSED, json.dumps({"format": FORMAT, **about}, indent=2) + "\n")


def measured(places: dict[str, Path], windows: Batch, device: torch.device, o: Options) -> dict[str, Any]:
    """The numbers of some folders, from a fresh process that opens them.

    Raises:
        TrainerError: It failed; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="compress-") as temporary:
        order, answer, held = (Path(temporary) / name for name in ("order.json", "answer.json", "windows.pt"))
        torch.save({"inputs": windows.inputs, "targets": windows.targets}, held)
        order.write_text(json.dumps({
            "models": {name: str(path) for name, path in places.items()}, "windows": str(held), "device": device.type,
            "threads": o.threads or int(os.environ.get("OMP_NUM_THREADS") or cpus.usable().at_once),
            "repeats": o.repeats,
        }))  # fmt: skip
        argv = [sys.executable, "-P", "-m", measure.__name__, str(order), str(answer)]
        if code := subprocess.run(argv, check=False).returncode:
            raise TrainerError(f"the models could not be measured: that process ended with {code}")
        return folder.read_json(answer, str(answer))


def run(o: Options) -> int:
    """Make the smaller models, measure all, and leave table and result."""
    began = time.perf_counter()
    report.prepare_folder(o.out)
    torch.set_num_threads(o.threads or int(os.environ.get("OMP_NUM_THREADS") or cpus.usable().at_once))
    torch.manual_seed(mix(o.seed, "compress"))
    device = pick_device(os.environ.get("STACK_DEVICE") or "auto", 0)
    opened = open_model(o.model)
    positions = models.shape(opened.config).positions
    o = replace(o, context=o.context or min(positions, 256))
    if o.context > positions:
        raise BadInputError(f"--context {o.context}: the model has {positions:,} positions")
    opened.model.to(device)
    corpus = load_corpus(o, opened)
    held_out = texts.validation_windows(corpus.val, o.context, o.eval_tokens)
    parameters = sum(p.numel() for p in opened.model.parameters())
    say(f"model   {o.model}: {parameters:,} parameters, {opened.config['model_type']}")
    if held := sum(tensor.numel() for tensor in experts.tensors(opened.model).values()):
        say(f"experts {held:,} of them: they keep their numbers, whatever the method; only distill makes them fewer")
    say(f"text    {', '.join(map(str, o.data))}: measured on {held_out.targets.numel():,} tokens, context {o.context}")

    kept = {"data": list(map(str, o.data)), "val_fraction": o.val_fraction, "context": o.context,
            "eval_tokens": o.eval_tokens}  # fmt: skip
    places = {table.ORIGINAL: o.out / table.ORIGINAL}
    folder.forget(o.out)
    write(opened.model, opened.tokenizer, places[table.ORIGINAL],
          {"method": "", "scheme": "", "from": str(o.model), "options": kept})  # fmt: skip
    opened.model.to(device)
    for method in o.method:
        say(f"{method}: {METHODS[method].summary}")
        for name, model in made(method, opened, corpus, o).items():
            places[name] = o.out / name
            write(model, opened.tokenizer, places[name], {"method": name, "scheme": METHODS[method].scheme,
                                                          "from": str(o.model), "options": kept})  # fmt: skip
    say("measuring all of them in a fresh process")
    found = measured(places, held_out, device, o)
    rows = table.changes(found["models"])
    for row in rows:
        row["folder"] = str(places[row["name"]])
    seconds = round(time.perf_counter() - began, 3)
    described = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(o).items()}
    report.write_result(o.out / "result.json", {
        "workload": "compress", "model": str(o.model), "models": rows, "tokens": held_out.targets.numel(),
        "context": o.context, "threads": found["threads"], "device": device.type, "seed": o.seed, "world_size": 1,
        "seconds": seconds, "options": described | {"data": list(map(str, o.data))},
    })  # fmt: skip
    say("\n" + "\n".join(table.lines(rows)) + "\n")
    say(f"done    in {seconds:.0f} s, with {found['threads']} threads on {device.type}")
    say(f"files   {o.out}: result.json, " + ", ".join(f"{name}/" for name in places))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    leave(main())
