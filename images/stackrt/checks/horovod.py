"""Does Horovod have what was built into it, and is what it computes right?"""

import re
import subprocess
from collections.abc import Collection, Mapping, Sequence

from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.pytorch import MOST_ERROR, judge_training, ranks_failed
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed, skipped, warned
from stackrt.checks.words import NO_IMAGE, REBUILD

KNOWN = {
    "tf-keras": "module 'keras.backend' has no attribute 'constant'",
    "Keras 3": "object has no attribute 'ref'",
}
"""How `fit` with Horovod's Keras interface fails (github.com/horovod/horovod/issues/4290)."""
NAMES = {"torch": "PyTorch", "tensorflow": "TensorFlow"}


def program(context: Context, name: str) -> str:
    """The function `name` for the ranks of the image's framework."""
    kind = "tf" if context.image and context.image.framework == "tensorflow" else "torch"
    return f"stackrt.checks.horovod_{kind}:{name}"


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
    done = subprocess.run(["horovodrun", "--check-build"], capture_output=True, text=True, check=False)  # noqa: S607
    print(done.stdout, done.stderr)
    declared = {NAMES[context.image.framework], "Gloo"} | ({"NCCL"} if context.image.cuda else set())
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
    proves="Horovod's Keras interface is as docs/horovod.md says: not for today's Keras",
    criterion="fit with its callbacks fails in the known ways, under tf-keras and under Keras 3",
)
def hvd_keras(context: Context) -> Result:
    """Fit under both Kerases on two ranks."""
    if context.image is None or context.image.framework != "tensorflow":
        return skipped("this image's Horovod is for PyTorch")
    problems = {}
    for name, legacy in (("tf-keras", "1"), ("Keras 3", "0")):
        env = {"TF_USE_LEGACY_KERAS": legacy}
        try:
            answers = ranks.run(context, program(context, "keras_fit"), 2, framework="horovod", env=env, timeout=290)
        except ranks.RanksError as error:
            return ranks_failed(error)
        problems[name] = str(answers[0]["problem"])
    return judge_keras(problems)


def judge_keras(problems: Mapping[str, str]) -> Result:
    """Judge how `fit` ended: name of the Keras -> what went wrong, empty if nothing did."""
    other = {name: problem for name, problem in problems.items() if KNOWN[name] not in problem}
    if other:
        return warned(
            "; ".join(f"under {name}: {problem or 'it works'}" for name, problem in other.items()),
            expected="the known failures: " + "; ".join(KNOWN[name] for name in other),
            todo="Horovod or Keras has changed: try it, and put right what docs/horovod.md says of Keras",
        )  # fmt: skip
    return passed(
        "fit fails as is known, under tf-keras and Keras 3: train with DistributedGradientTape (hvd-optimizer)"
    )
