"""A training process beside its training: how it computes, how fast it learns when, how it speaks, and how it ends."""

import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from stackrt.launch import cpus
from stackrt.train import errors, paths
from stackrt.train.command_line import Training
from stackrt.train.errors import BadInputError, PeersGoneError
from stackrt.train.ranks import Ranks, lost_peers
from stackrt.train.text import mix


def set_up_compute(wanted_threads: int, seed: int, ranks: Ranks) -> int:
    """Make this rank deterministic and seed its initial weights.

    Returns:
        CPU threads of this rank. Sums may be split by thread, so with several ranks the number must not depend on the
        machine that a rank is on; alone it is the launcher's OMP_NUM_THREADS.
    """
    alone = int(os.environ.get("OMP_NUM_THREADS") or cpus.usable().at_once)
    threads = wanted_threads or (1 if ranks.world_size > 1 else alone)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # it would write every buffer twice, to show up faulty operations
    torch.manual_seed(mix(seed, "weights"))
    return threads


def check_compiler(device: torch.device) -> None:
    """See that torch.compile has what it calls: on a CPU g++, or what CXX names; for a GPU's Triton a C compiler.

    Raises:
        BadInputError: There is none, or the headers of Python are missing, which its code includes.
    """
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++",))
    named = os.environ.get(variable)
    tried = tuple(named.split()[:1]) if named else usual
    if not any(map(shutil.which, tried)):
        raise BadInputError(
            f"--compile: there is no {' or '.join(tried) or variable} here, which torch.compile calls; install it, "
            f"name another compiler with {variable}, or leave --compile out"
        )
    headers = Path(sysconfig.get_path("include"))
    if not paths.is_there(headers / "Python.h"):
        raise BadInputError(
            f"--compile: the headers of Python are not in {headers}, which torch.compile needs; install them "
            "(python3-dev), or leave --compile out"
        )


def build_optimizer(parameters: Iterable[Tensor], o: Training) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) that decays matrices, not biases and norms.

    Sharded parameters of another mesh are updated by themselves.
    """
    groups: dict[tuple[bool, int], list[Tensor]] = {}
    for parameter in parameters:
        key = (parameter.dim() >= 2, id(getattr(parameter, "device_mesh", None)))
        groups.setdefault(key, []).append(parameter)
    rows = [{"params": held, "weight_decay": o.weight_decay * matrix} for (matrix, _), held in groups.items()]
    return torch.optim.AdamW(rows, lr=o.lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def learning_rate(step: int, o: Training) -> float:
    """The rate of step 0, 1, …: linear warm-up to `--lr`, then half a cosine down to `--min-lr` at the last step."""
    if step < o.warmup:
        return o.lr * (step + 1) / o.warmup
    progress = (step - o.warmup) / max(1, o.steps - 1 - o.warmup)
    return o.min_lr + 0.5 * (o.lr - o.min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


def say(line: str) -> None:
    """Print at once; logs are read while they grow."""
    print(line, flush=True)


def ended(run: Callable[[], int]) -> int:
    """Run a trainer to its exit code; an expected failure becomes one line.

    Raises:
        Exception: Whatever was not expected; and with STACK_DEBUG=1 also what was.
    """

    def told() -> int:
        try:
            return run()
        except RuntimeError as error:
            if os.environ.get("STACK_DEBUG") == "1" or not lost_peers(error):
                raise
            raise PeersGoneError(f"another rank is gone: {str(error).splitlines()[0]}") from None

    return errors.ended(told)


def keep(thing: object) -> None:
    """Keep something until this process leaves.

    What DDP has of a destroyed process group joins the group's threads when it goes, and holds the interpreter's lock
    meanwhile: a thread of gloo's that waits for that lock waits for ever (https://github.com/pytorch/pytorch/issues/56297).
    """
    _KEPT.append(thing)


_KEPT: list[object] = []


def leave(exit_code: int) -> NoReturn:
    """End the process at once.

    Not by sys.exit: where a rank leaves with an error, the process groups' C++ threads still run, and the interpreter's
    own end aborts over them now and then; the launcher would then name that abort in place of the error.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # of a full disk `ended` has told
            stream.flush()
    os._exit(exit_code)
