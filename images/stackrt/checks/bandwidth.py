"""How fast and how rightly GPUs copy and compute: to the host, to each other, and for as long as --burn says."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from stackrt import nvml, skus
from stackrt.checks.context import Context
from stackrt.checks.gpu_health import SLOWED
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed

COPY_BYTES = 256 * 2**20
COPIES = 10
LANE_GB_PER_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""Of one PCIe lane by generation, after its line code (PCI-SIG)."""
OF_LINK = 0.7
"""What a copy reaches of its link, at least; packet headers alone take a tenth and more."""

BURN_SECONDS = 5.0
"""When --burn does not say."""
BURN_SIZE, BURN_ROUND = 8192, 20
"""Rows of the matrices, and products between two looks."""
WARM_UP_SECONDS = 1.0
"""Clocks rise from idle, and then fall to what the power limit allows."""
CLOCKS_HELD = 0.7
"""The lowest clock under load, as a part of the highest."""


@check(
    "pcie-bandwidth",
    needs=("gpu",),
    tags=("cuda", "bandwidth"),
    frameworks=("torch",),
    timeout=180.0,
    proves="each GPU exchanges data with the host at the full speed of its slot",
    criterion=f"pinned copies both ways reach the GPU's figure (skus.toml), or {OF_LINK:g} of its PCIe link",
)
def pcie_bandwidth(context: Context) -> Result:
    """Time pinned copies of every GPU, one after the other."""
    return judge_host_copies([host_copies(index) for index in range(context.gpus)])


@dataclass(frozen=True)
class HostCopies:
    """What one GPU reached: GB/s each way, and its PCIe link (generation, width, and the most of both)."""

    name: str
    to_gpu: float
    to_host: float
    link: tuple[int, int, int, int]


def host_copies(index: int) -> HostCopies:
    """Time copies between pinned memory and a GPU."""
    import torch

    device = torch.device("cuda", index)
    host = torch.empty(COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    gpu = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    with torch.cuda.device(device):
        speeds = [_copy_speed(*pair) for pair in ((gpu, host), (host, gpu))]
    with nvml.opened() as driver:
        link = driver.pcie(driver.handle(uuid_of(index)))
    return HostCopies(torch.cuda.get_device_name(index), speeds[0], speeds[1], link)


def _copy_speed(target: Any, source: Any) -> float:
    """GB/s of copying one tensor onto another, by the GPU's own clock."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    target.copy_(source, non_blocking=True)
    begin.record()
    for _ in range(COPIES):
        target.copy_(source, non_blocking=True)
    end.record()
    end.synchronize()
    return float(COPIES * COPY_BYTES / 1e6 / begin.elapsed_time(end))


def uuid_of(index: int) -> str:
    """The UUID of one of this process's GPUs, as NVML writes it; the two may count in different orders."""
    import torch

    return f"GPU-{torch.cuda.get_device_properties(index).uuid}"


def judge_host_copies(rows: Sequence[HostCopies]) -> Result:
    """Judge copies between host and GPUs."""
    wrong = []
    for index, row in enumerate(rows):
        generation, width, most_generation, most_width = row.link
        least = skus.of(row.name).host_gb_per_s or OF_LINK * LANE_GB_PER_S.get(most_generation, 0.0) * most_width
        for way, speed in (("to the GPU", row.to_gpu), ("to the host", row.to_host)):
            if not speed >= least:
                now = f"; its link is now generation {generation} x{width} of {most_generation} x{most_width}"
                wrong.append(f"GPU {index} {way}: {speed:.1f} of {least:.1f} GB/s" + now)
    slowest = min((min(row.to_gpu, row.to_host) for row in rows), default=0.0)
    figures = {"to_gpu_gb_per_s": [row.to_gpu for row in rows], "to_host_gb_per_s": [row.to_host for row in rows]}
    if wrong:
        return failed(
            "; ".join(wrong), expected="the full speed of the slot", **figures,
            todo="stop what else uses the GPU; look at its slot and riser, IOMMU, and the process's NUMA node",
        )  # fmt: skip
    return passed(f"{len(rows)} GPUs, the slowest way {slowest:.1f} GB/s", **figures)


@check(
    "p2p-exact",
    needs=("multi-gpu",),
    tags=("cuda", "bandwidth"),
    frameworks=("torch",),
    timeout=300.0,
    proves="what one GPU sends another is what arrives, for every pair",
    criterion="copies are equal to the last bit; over NVLink they reach the GPU's figure (skus.toml)",
)
def p2p_exact(context: Context) -> Result:
    """Copy between all pairs, and record what joins them."""
    import torch

    devices = [f"cuda:{index}" for index in range(context.gpus)]
    with nvml.opened() as driver:
        handles = [driver.handle(uuid_of(index)) for index in range(context.gpus)]
        joined = {f"{a}>{b}": driver.between(handles[a], handles[b]) for a, b in permutations(range(context.gpus), 2)}
    differ = unequal_copies(devices)
    speeds = {pair: pair_speed(*map(int, pair.split(">"))) for pair in joined}
    return judge_pairs(torch.cuda.get_device_name(0), joined, differ, speeds)


def unequal_copies(devices: Sequence[str], size: int = 2**24) -> list[str]:
    """The ordered pairs, `0>1`, between which random bytes do not arrive as they were sent."""
    import torch

    torch.manual_seed(0)
    original = torch.randint(0, 256, (size,), dtype=torch.uint8)
    wrong = []
    for one, other in permutations(range(len(devices)), 2):
        arrived = original.to(devices[one]).to(devices[other])
        if not torch.equal(arrived.cpu(), original):
            wrong.append(f"{one}>{other}")
    return wrong


def pair_speed(one: int, other: int) -> float:
    """GB/s of copies from one GPU to another."""
    import torch

    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=f"cuda:{one}")
    target = torch.empty(COPY_BYTES, dtype=torch.uint8, device=f"cuda:{other}")
    # PyTorch puts a copy between GPUs on the stream of the source.
    with torch.cuda.device(one):
        return _copy_speed(target, source)


def judge_pairs(name: str, joined: Mapping[str, str], differ: Sequence[str], speeds: Mapping[str, float]) -> Result:
    """Judge copies between GPUs.

    Args:
        name: The kind of GPU.
        joined: Pair, `0>1`, -> what joins them.
        differ: Pairs whose copies were not equal.
        speeds: Pair -> GB/s.
    """
    least = skus.of(name).peer_gb_per_s
    slow = [pair for pair, speed in speeds.items() if joined[pair] == "NVLink" and not speed >= least]
    kinds = ", ".join(sorted(set(joined.values())))
    figures = {"joined": dict(joined), "gb_per_s": dict(speeds)}
    if differ:
        return failed(
            f"copies arrive changed: {', '.join(differ)}", expected="equal copies", **figures,
            todo="switch off IOMMU or ACS redirection on the host, or set NCCL_P2P_DISABLE=1; then repeat",
        )  # fmt: skip
    if slow:
        return failed(
            f"slow over NVLink: {', '.join(f'{pair} {speeds[pair]:.0f} GB/s' for pair in slow)}",
            expected=f"{least:g} GB/s", todo="look at `nvidia-smi nvlink --status` and the fabric manager", **figures,
        )  # fmt: skip
    return passed(
        f"{len(joined)} pairs copy exactly, {min(speeds.values()):.0f} GB/s or more; joined by {kinds}", **figures
    )


@check(
    "burn",
    needs=("gpu",),
    tags=("cuda", "bandwidth"),
    frameworks=("torch",),
    timeout=7 * 86400.0,
    proves="the GPUs compute at full speed for as long as asked, and always the same",
    criterion=f"every matrix product repeats exactly, clocks stay above {CLOCKS_HELD:g} of their highest, "
    "nothing slows the clocks, and the GPU's TFLOP/s (skus.toml) are reached",
)
def burn(context: Context) -> Result:
    """Multiply on all GPUs at once for --burn seconds."""
    import torch

    devices = [f"cuda:{index}" for index in range(context.gpus)]
    with nvml.opened() as driver:
        handles = [driver.handle(uuid_of(index)) for index in range(context.gpus)]

        def look(index: int) -> tuple[int, int]:
            return driver.sm_clock(handles[index]), driver.slowed(handles[index])

        burns = burn_figures(devices, context.burn or BURN_SECONDS, look)
    return judge_burns([torch.cuda.get_device_name(device) for device in devices], burns)


@dataclass
class Burn:
    """What one GPU did: rounds, those that did not repeat the first, TFLOP/s, clocks in MHz, slowdowns as a mask."""

    rounds: int = 0
    unequal: int = 0
    tflop_per_s: float = 0.0
    lowest_clock: int = 0
    highest_clock: int = 0
    slowed: int = 0


def burn_figures(
    devices: Sequence[str],
    seconds: float,
    look: Callable[[int], tuple[int, int]],
    size: int = BURN_SIZE,
    products: int = BURN_ROUND,
    warm_up: float = WARM_UP_SECONDS,
) -> list[Burn]:
    """Multiply on all devices at once; one Burn for each.

    Args:
        devices: PyTorch's names.
        seconds: For how long.
        look: Index of a device -> its clock in MHz and a mask of nvmlClocksEventReasons, now.
        size: Rows of the matrices.
        products: Multiplications in a round.
        warm_up: Seconds before anything counts.
    """
    import torch

    def finish(device: str) -> None:
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    torch.manual_seed(0)
    a, b = torch.randn(2, size, size, dtype=torch.bfloat16)
    inputs = [(a.to(device), b.to(device)) for device in devices]
    wanted = [one @ other for one, other in inputs]
    results = [torch.empty_like(one) for one in wanted]
    burns, busy = [Burn() for _ in devices], 0.0
    began = time.monotonic()
    while not burns[0].rounds or time.monotonic() - began < warm_up + seconds:
        for device in devices:
            finish(device)
        started = time.perf_counter()
        for _ in range(products):
            for (one, other), result in zip(inputs, results, strict=True):
                torch.mm(one, other, out=result)
        seen = [look(index) for index in range(len(devices))]
        for device in devices:
            finish(device)
        took = time.perf_counter() - started
        if time.monotonic() - began < warm_up:
            continue
        busy += took
        for made, result, first, (clock, slowed) in zip(burns, results, wanted, seen, strict=True):
            made.rounds += 1
            made.unequal += not torch.equal(result, first)
            made.tflop_per_s = made.rounds * products * 2 * size**3 / busy / 1e12
            made.lowest_clock = min(made.lowest_clock or clock, clock)
            made.highest_clock = max(made.highest_clock, clock)
            made.slowed |= slowed
    return burns


def judge_burns(names: Sequence[str], burns: Sequence[Burn]) -> Result:
    """Judge each GPU's burn-in."""
    wrong = []
    for index, (name, made) in enumerate(zip(names, burns, strict=True)):
        least = skus.of(name).bf16_tflop_per_s
        slowed = [reason for bit, reason in SLOWED.items() if made.slowed & bit]
        problems = {
            f"{made.unequal} of {made.rounds} rounds gave another result": made.unequal > 0,
            f"{made.tflop_per_s:.0f} of {least:g} TFLOP/s": not made.tflop_per_s >= least,
            f"clocks fell from {made.highest_clock} to {made.lowest_clock} MHz": (
                made.lowest_clock < CLOCKS_HELD * made.highest_clock
            ),
            f"clocks held down: {', '.join(slowed)}": bool(slowed),
        }
        wrong += [f"GPU {index}: {problem}" for problem, is_so in problems.items() if is_so]
    figures = {"gpus": [vars(made) for made in burns]}
    if wrong:
        return failed(
            "; ".join(wrong), expected="equal results at full speed", **figures,
            todo="take the node out of use; look at cooling, power and gpu-health, and repeat with --burn 600",
        )  # fmt: skip
    rounds, slowest = sum(made.rounds for made in burns), min(made.tflop_per_s for made in burns)
    return passed(f"{rounds} rounds on {len(burns)} GPUs repeat exactly, {slowest:.0f} TFLOP/s or more", **figures)
