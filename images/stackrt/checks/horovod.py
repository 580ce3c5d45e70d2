"""Does Horovod have what was built into it, and is what it computes right?"""

import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence

from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.pytorch import MOST_ERROR, judge_training, ranks_failed
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped
from stackrt.checks.words import NO_IMAGE, REBUILD
from stackrt.frameworks import DEFAULT, FRAMEWORKS

Fit = Mapping[str, str | list[float]]
KERASES = {"tf-keras": "1", "Keras 3": "0"}
"""Each Keras -> TF_USE_LEGACY_KERAS."""
RATES = {
    "LearningRateWarmupCallback": [0.75, 1.0],
    "LearningRateScheduleCallback": [1.0, 0.5],
}
"""A callback of `horovod_tf.keras_fit` -> two ranks' learning rates after each epoch, as parts of the full one."""

LOADED = """\
import contextlib, importlib, runpy, sys
sys.argv.pop(0)
with contextlib.suppress(Exception):
    importlib.import_module(sys.argv.pop(0))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a Python program with a module loaded: `horovodrun --check-build` asks each question in a child of its own,
which would import the framework again."""


def program(context: Context, name: str) -> str:
    """The function `name` for the ranks of the image's framework."""
    framework = context.image.framework if context.image else DEFAULT
    return f"stackrt.checks.horovod_{FRAMEWORKS[framework].short}:{name}"


@check(
    "hvd-build",
    frameworks=("horovod",),
    timeout=180.0,
    proves="Horovod was compiled with what the image declares",
    criterion="`horovodrun --check-build` shows the image's framework, Gloo, and NCCL in a CUDA image; nothing else",
)
def hvd_build(context: Context) -> Result:
    """Ask Horovod what it was compiled with."""
    if context.image is None:
        return skipped(NO_IMAGE)
    horovodrun = shutil.which("horovodrun")
    if horovodrun is None:
        return failed("there is no horovodrun", expected="a Horovod image has it", todo=REBUILD)
    module = f"horovod.{context.image.framework}"
    argv = [sys.executable, "-P", "-c", LOADED, module, horovodrun, "--check-build"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    declared = {FRAMEWORKS[context.image.framework].title, "Gloo"} | ({"NCCL"} if context.image.cuda else set())
    found = set(re.findall(r"\[X\] (\S+)", done.stdout))
    if context.image.framework != "torch":
        found.discard("PyTorch")  # horovodrun asks only whether horovod.torch is importable: it is, without its library
    return judge_build(found, declared)


def judge_build(found: Collection[str], declared: Collection[str]) -> Result:
    """Judge Horovod's features."""
    absent, extra = sorted(set(declared) - set(found)), sorted(set(found) - set(declared))
    if absent or extra:
        words = [f"without {', '.join(absent)}"] * bool(absent) + [f"with {', '.join(extra)}"] * bool(extra)
        return failed(
            f"Horovod is built {' and '.join(words)}", expected=", ".join(sorted(declared)), todo=REBUILD,
            features=sorted(found),
        )  # fmt: skip
    return passed(f"built with {', '.join(sorted(found))}", features=sorted(found))


@check(
    "hvd-collectives",
    tags=("distributed",),
    frameworks=("horovod",),
    timeout=240.0,
    proves="Horovod's collectives are right",
    criterion="allreduce, allgather, broadcast and alltoall are exact on two ranks",
)
def hvd_collectives(context: Context) -> Result:
    """Run each collective on two ranks."""
    try:
        return judge_collectives(
            ranks.run(context, program(context, "collectives"), 2, framework="horovod", timeout=230)
        )
    except ranks.RanksError as error:
        return ranks_failed(error)


def judge_collectives(answers: Sequence[Mapping[str, Sequence[float]]]) -> Result:
    """Judge what each rank received: collective -> numbers, of ranks that gave 1, 2, 3 times their rank + 1."""
    count = len(answers)
    total = count * (count + 1) / 2
    everyone = [rank + 1.0 for rank in range(count)]
    wrong = []
    for rank, answer in enumerate(answers):
        wanted = {
            "sum": [total, 2 * total, 3 * total],
            "mean": [total / count, 2 * total / count, 3 * total / count],
            "allgather": everyone,
            "broadcast": [float(count), 2.0 * count, 3.0 * count],
            "alltoall": everyone,
        }
        wrong += [f"{name} on rank {rank} is {answer.get(name)}, not {values}" for name, values in wanted.items()
                  if list(answer.get(name, ())) != values]  # fmt: skip
    if wrong:
        return failed(
            "; ".join(wrong), expected="exact results",
            todo="memory or the network computes wrongly: repeat it, then leave out one node after the other",
        )  # fmt: skip
    return passed(f"sum, mean, allgather, broadcast and alltoall are exact on {count} ranks")


@check(
    "hvd-optimizer",
    tags=("distributed",),
    frameworks=("horovod",),
    timeout=240.0,
    proves="two ranks train with Horovod as one process would",
    criterion=f"weights after a step equal the serial ones to {MOST_ERROR:g}",
)
def hvd_optimizer(context: Context) -> Result:
    """Compare two ranks' weights with those of one process."""
    try:
        return judge_training(ranks.run(context, program(context, "optimizer"), 2, framework="horovod", timeout=230))
    except ranks.RanksError as error:
        return ranks_failed(error)


@check(
    "hvd-keras",
    tags=("distributed",),
    frameworks=("horovod",),
    timeout=600.0,
    proves="`fit` trains with Horovod's optimizer and callbacks, under tf-keras and under Keras 3",
    criterion="with each callback two ranks end with equal weights; metrics are averaged, learning rates as asked for",
)
def hvd_keras(context: Context) -> Result:
    """Fit under both Kerases with each of Horovod's callbacks."""
    if context.image is None or context.image.framework != "tensorflow":
        return skipped("this image's Horovod is for PyTorch")
    found = {}
    for name, legacy in KERASES.items():
        env = {"TF_USE_LEGACY_KERAS": legacy}
        try:
            found[name] = ranks.run(
                context, program(context, "keras_fit"), 2, framework="horovod", env=env, timeout=290
            )
        except ranks.RanksError as error:
            return ranks_failed(error)
    return judge_keras(found)


def judge_keras(found: Mapping[str, Sequence[Mapping[str, Fit]]]) -> Result:
    """Judge how `fit` ended: name of the Keras -> by rank: callback -> what `horovod_tf.keras_fit` says of it."""
    wrong = []
    for keras, answers in found.items():
        for callback in answers[0]:
            problem = _fits_differ(callback, [answer[callback] for answer in answers])
            wrong += [f"{callback} under {keras}: {problem}"] * bool(problem)
    if wrong:
        return failed(
            "; ".join(wrong), expected="what docs/horovod.md says of Keras",
            todo="Horovod or Keras has changed: put images/patches/horovod-python right, and rebuild",
        )  # fmt: skip
    return passed(f"fit and {len(next(iter(found.values()))[0])} callbacks work under {' and '.join(found)}")


def _fits_differ(callback: str, fits: Sequence[Fit]) -> str:
    """What is wrong with the ranks' fits with a callback; empty if nothing."""
    for fit in fits:
        if fit["problem"]:
            return str(fit["problem"])
    if len({fit["sha256"] for fit in fits}) > 1:
        return "the ranks end with different weights"
    if callback == "MetricAverageCallback" and len({str(fit["loss"]) for fit in fits}) > 1:
        return f"the ranks' losses are not averaged: {' and '.join(str(fit['loss']) for fit in fits)}"
    rates = RATES.get(callback, fits[0]["rates"])
    other = next((fit["rates"] for fit in fits if fit["rates"] != rates), rates)
    return "" if other == rates else f"the learning rates are {other} of the full one, not {rates}"
