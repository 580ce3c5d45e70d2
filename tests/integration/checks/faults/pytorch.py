from __future__ import annotations

import os
import sys
from functools import partial
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from typing import Any

from stackrt.checks.result import Result
from tests.commands import ROOT
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy_in

CORRUPT_ONE_GRADIENT = """
import os
if os.environ.get("RANK") == "1":
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    def corrupt(future):
        gradients = future.value()[0]
        gradients[7] += 1e-4
        return gradients

    plain = DistributedDataParallel.__init__

    def init(self, *arguments, **options):
        plain(self, *arguments, **options)
        self.register_comm_hook(None, lambda _, bucket: allreduce_hook(None, bucket).then(corrupt))

    DistributedDataParallel.__init__ = init
"""
END_A_RANK = """
import os, sys
if os.environ.get("RANK") == "1":
    print("rank 1: out of luck", file=sys.stderr)
    os._exit(9)
"""


def in_ranks(bench: Bench, code: str) -> dict[str, str]:
    """The environment in which each rank's Python runs this code at its start."""
    (bench.tmp / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(bench.tmp), str(ROOT / "images")])}


@fault("gloo-ddp", "a rank that corrupts one gradient", needs=("torch",))
def corrupted(bench: Bench) -> Result:
    return bench.run("gloo-ddp", env=in_ranks(bench, CORRUPT_ONE_GRADIENT))


@fault("gloo-ddp", "a rank that ends early", needs=("torch",))
def ended(bench: Bench) -> Result:
    result = bench.run("gloo-ddp", env=in_ranks(bench, END_A_RANK))
    assert "rank 1" in result.found
    return result


@fault("compile-cpu", "a broken C++ compiler", needs=("torch",))
def broken_compiler(bench: Bench) -> Result:
    return bench.run("compile-cpu", env={"CXX": "/bin/false"}, loaded=("torch",))


@fault("compile-cpu", "no C++ compiler in the image", needs=("docker",))
def no_compiler(bench: Bench) -> Result:
    return bench.short()["compile-cpu"]


def flip_a_bit() -> None:
    import torch

    plain = torch.load

    def load(file: Path, weights_only: bool) -> Any:
        saved = plain(file, weights_only=weights_only)
        saved["optimizer"]["state"][0]["exp_avg"].view(torch.int32)[3, 3] ^= 1
        return saved

    torch.load = load  # type: ignore[assignment]


@fault("checkpoint", "one bit of a saved moment flips", needs=("torch",))
def flipped(bench: Bench) -> Result:
    return bench.run("checkpoint", plant=flip_a_bit, loaded=("torch",))


def stand_in(code: str) -> None:
    """Have `import torchvision` run this code."""

    class Finder(MetaPathFinder, InspectLoader):
        def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
            return spec_from_loader(name, self) if name.partition(".")[0] == "torchvision" else None

        def get_source(self, fullname: str) -> str:
            return code

        def is_package(self, fullname: str) -> bool:
            return fullname == "torchvision"

    sys.meta_path.insert(0, Finder())


@fault("torchvision", "a torchvision of another build", needs=("torch",))
def no_operators(bench: Bench) -> Result:
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    return bench.run("torchvision", plant=partial(stand_in, code), loaded=("torch",))


@fault("torchvision", "an operator that computes wrongly", needs=("torch",))
def wrong_operator(bench: Bench) -> Result:
    code = "def nms(boxes, scores, most): return scores.argsort()"
    return bench.run("torchvision", plant=partial(stand_in, code), loaded=("torch",))


healthy_in("pytorch:cuda", "torchvision")
healthy_in("pytorch", "gloo-ddp", "compile-cpu", "checkpoint")
