"""Faults planted in what GPUs would have measured; see pytorch_gpu.py beside this file."""

from __future__ import annotations

from typing import Any

from stackrt.checks.nccl import judge_collectives, judge_single
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

H100 = "NVIDIA H100 80GB HBM3"
SIZE = 16 * 2**30


def answers(seconds: float = 0.0637, ranks: int = 8, **changes: Any) -> list[dict[str, dict[str, Any]]]:
    """What ranks answer: an all-reduce of 16 GiB in 63.7 ms is 472 GB/s over 8 GPUs."""
    names = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
    made = [{name: {"bytes": SIZE, "seconds": seconds, "exact": True} for name in names} for _ in range(ranks)]
    made[-1]["all_reduce"].update(changes)
    return made


@healthy("nccl-single")
def comes_up(bench: Bench) -> Result:
    return judge_single(right=True, version="2.29.7")


@fault("nccl-single", "a sum over one rank changes the values")
def changes_values(bench: Bench) -> Result:
    return judge_single(right=False, version="2.29.7")


@healthy("nccl-busbw")
def full_speed(bench: Bench) -> Result:
    result = judge_collectives(H100, answers())
    assert 471 < result.figures["all_reduce_bus_gb_per_s"] < 473
    return result


@healthy("nccl-busbw")
def fewer_gpus(bench: Bench) -> Result:
    return judge_collectives(H100, answers(seconds=1.0, ranks=2))


@fault("nccl-busbw", "one rank gets a wrong sum")
def inexact(bench: Bench) -> Result:
    return judge_collectives(H100, answers(exact=False))


@fault("nccl-busbw", "one rank is slow")
def slow_rank(bench: Bench) -> Result:
    return judge_collectives(H100, answers(seconds=0.2))


@fault("nccl-busbw", "one collective is slow")
def slow_collective(bench: Bench) -> Result:
    made = answers()
    made[-1]["all_to_all"]["seconds"] = 0.5
    result = judge_collectives(H100, made)
    assert result.found == "over 8 GPUs all_to_all reaches 30 GB/s"
    return result
