"""NCCL: does it come up and compute rightly, and how fast is it, by the formulas of nccl-tests?"""

from collections.abc import Mapping, Sequence
from typing import Any

from stackrt import skus
from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.pytorch import ranks_failed
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed

OF_FIGURE = 0.9
"""The part of a GPU's figure (skus.toml) that a collective must reach."""
OF_ALL_REDUCE = 0.5
"""And of the same figure the others: switches that add help an all-reduce most, a link that is lost harms all."""
MOST_BYTES = 16 * 2**30
RANKS = "stackrt.checks.nccl_ranks"


def bus_factor(collective: str, ranks: int) -> float:
    """What the bandwidth of a collective is multiplied by to compare it with that of the hardware.

    Source: doc/PERFORMANCE.md of nccl-tests. With one rank nothing travels, so that most are 0.

    Args:
        collective: `all_reduce`, `all_gather`, `reduce_scatter`, `all_to_all`, `broadcast` or `reduce`.
        ranks: How many take part.
    """
    share = (ranks - 1) / ranks
    return {
        "all_reduce": 2 * share, "all_gather": share, "reduce_scatter": share, "all_to_all": share,
        "broadcast": 1.0, "reduce": 1.0,
    }[collective]  # fmt: skip


def bus_bandwidth(collective: str, ranks: int, size: int, seconds: float) -> float:
    """Bus bandwidth in GB/s.

    Args:
        collective: As in `bus_factor`.
        ranks: How many take part.
        size: Bytes: of the buffer that is reduced or sent; of the whole, for those that gather or scatter it.
        seconds: What one collective took.
    """
    return size / seconds / 1e9 * bus_factor(collective, ranks)


@check(
    "nccl-single",
    needs=("gpu",),
    tags=("cuda", "distributed"),
    frameworks=("torch",),
    timeout=120.0,
    proves="NCCL comes up on a GPU",
    criterion="a communicator of one rank gives back what was put in",
)
def nccl_single(_context: Context) -> Result:
    """Reduce over a group of this process alone."""
    import torch
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    # An in-memory store opens no port.
    dist.init_process_group("nccl", store=HashStore(), rank=0, world_size=1)
    values = torch.arange(1000, dtype=torch.float32, device="cuda")
    dist.all_reduce(values)
    found = values.cpu()
    dist.destroy_process_group()
    version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
    return judge_single(bool((found == torch.arange(1000)).all()), ".".join(map(str, version)))


def judge_single(right: bool, version: str) -> Result:
    """Judge a sum over one rank."""
    if not right:
        return failed(
            f"NCCL {version}: a sum over one rank changes the values", expected="the values as they were",
            todo="run gpu-health and cuda-versions",
        )  # fmt: skip
    return passed(f"NCCL {version} comes up", nccl=version)


@check(
    "nccl-busbw",
    needs=("multi-gpu",),
    tags=("cuda", "bandwidth", "distributed"),
    frameworks=("torch",),
    timeout=600.0,
    proves="the GPUs of this node exchange data rightly and at full speed",
    criterion=f"five collectives are exact; the all-reduce reaches {OF_FIGURE:g} of its figure (skus.toml), the others "
    f"{OF_ALL_REDUCE:g} of it",
)
def nccl_busbw(context: Context) -> Result:
    """Time each collective on all GPUs."""
    import torch

    name = torch.cuda.get_device_name(0)
    most = skus.of(name).all_reduce_gib * 2**30 or MOST_BYTES
    try:
        answers = ranks.run(
            context, f"{RANKS}:collectives", context.gpus, device="cuda", arguments={"most": most}, timeout=500
        )
    except ranks.RanksError as error:
        return ranks_failed(error)
    return judge_collectives(name, answers)


def judge_collectives(name: str, answers: Sequence[Mapping[str, Any]]) -> Result:
    """Judge what each rank measured.

    Args:
        name: The kind of GPU.
        answers: By rank: collective -> `bytes`, `seconds` of one, and whether it was `exact`.
    """
    count, sku = len(answers), skus.of(name)
    # The slowest rank's time is the collective's.
    speeds = {
        one: bus_bandwidth(one, count, row["bytes"], max(answer[one]["seconds"] for answer in answers))
        for one, row in answers[0].items()
    }
    inexact = [
        f"{one} on rank {rank}"
        for rank, answer in enumerate(answers)
        for one, row in answer.items()
        if not row["exact"]
    ]
    figures = {f"{one}_bus_gb_per_s": speed for one, speed in speeds.items()}
    if inexact:
        return failed(
            f"wrong results: {', '.join(inexact)}", expected="exact sums and copies", **figures,
            todo="run p2p-exact and gpu-health; repeat with NCCL_P2P_DISABLE=1 to tell links from memory",
        )  # fmt: skip
    figure = sku.all_reduce_gb_per_s if count == sku.all_reduce_gpus else 0.0
    least = {one: (OF_FIGURE if one == "all_reduce" else OF_ALL_REDUCE) * figure for one in speeds}
    slow = [one for one, speed in speeds.items() if not speed >= least[one]]
    if slow:
        return failed(
            f"over {count} GPUs " + ", ".join(f"{one} reaches {speeds[one]:.0f} GB/s" for one in slow),
            expected=", ".join(f"{one} {least[one]:.0f} GB/s" for one in slow),
            todo="look at `nvidia-smi nvlink --status`, `nvidia-smi topo -m`, the fabric manager and NCCL_* variables",
            **figures,
        )  # fmt: skip
    words = ", ".join(f"{one} {speed:.0f}" for one, speed in speeds.items())
    return passed(f"{count} GPUs are exact; bus bandwidth in GB/s: {words}", **figures)
