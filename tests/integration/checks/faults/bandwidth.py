"""Faults planted in what GPUs would have measured; see pytorch_gpu.py beside this file."""

from __future__ import annotations

from dataclasses import replace

from stackrt.checks.bandwidth import Burn, HostCopies, judge_burns, judge_host_copies, judge_pairs
from stackrt.checks.result import Result
from tests.integration.checks.bench import Bench
from tests.integration.checks.faults import fault, healthy

H100 = "NVIDIA H100 80GB HBM3"
COPIES = HostCopies(H100, 55.1, 54.8, (5, 16, 5, 16))
NVLINK = {"0>1": "NVLink", "1>0": "NVLink"}
BURN = Burn(rounds=180, tflop_per_s=690.0, lowest_clock=1590, highest_clock=1755)


@healthy("pcie-bandwidth")
def full_speed(bench: Bench) -> Result:
    return judge_host_copies([COPIES, HostCopies("NVIDIA GeForce RTX 4090", 24.9, 25.3, (4, 16, 4, 16))])


@fault("pcie-bandwidth", "a known GPU in a slow slot")
def slow_slot(bench: Bench) -> Result:
    return judge_host_copies([COPIES, replace(COPIES, to_gpu=26.2, link=(4, 16, 5, 16))])


@fault("pcie-bandwidth", "a GPU without figures, far below its link")
def slow_unknown(bench: Bench) -> Result:
    return judge_host_copies([HostCopies("NVIDIA GeForce RTX 4090", 24.9, 6.1, (4, 4, 4, 16))])


@healthy("p2p-exact")
def exact_pairs(bench: Bench) -> Result:
    return judge_pairs(H100, NVLINK, [], {"0>1": 392.0, "1>0": 391.0})


@healthy("p2p-exact")
def over_pcie(bench: Bench) -> Result:
    return judge_pairs(H100, {"0>1": "one PCIe switch", "1>0": "one PCIe switch"}, [], {"0>1": 24.0, "1>0": 24.0})


@fault("p2p-exact", "copies between two GPUs arrive changed")
def changed(bench: Bench) -> Result:
    return judge_pairs(H100, NVLINK, ["1>0"], {"0>1": 392.0, "1>0": 391.0})


@fault("p2p-exact", "a slow NVLink")
def slow_link(bench: Bench) -> Result:
    return judge_pairs(H100, NVLINK, [], {"0>1": 392.0, "1>0": 148.0})


@healthy("burn")
def holds(bench: Bench) -> Result:
    return judge_burns([H100, "NVIDIA L4"], [BURN, Burn(10, 0, 61.0, 1200, 1300)])


@fault("burn", "one round gives another result")
def does_not_repeat(bench: Bench) -> Result:
    return judge_burns([H100, H100], [BURN, replace(BURN, unequal=1)])


@fault("burn", "a slow GPU")
def slow(bench: Bench) -> Result:
    return judge_burns([H100], [replace(BURN, tflop_per_s=410.0)])


@fault("burn", "clocks that fall")
def falling_clocks(bench: Bench) -> Result:
    return judge_burns([H100], [replace(BURN, lowest_clock=900)])


@fault("burn", "heat slows the clocks")
def hot(bench: Bench) -> Result:
    return judge_burns([H100], [replace(BURN, slowed=0x40)])
