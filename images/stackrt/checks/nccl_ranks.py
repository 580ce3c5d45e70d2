"""What `nccl-busbw` runs in each rank: five collectives, first for their results, then for their time."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

WARM_UPS, ROUNDS = 5, 20
"""As many rounds as nccl-tests makes by default."""
PART_OF_MEMORY = 4
"""Input and output must fit into a GPU's free memory together, with room for NCCL's own buffers."""


def collectives(most: int) -> dict[str, dict[str, Any]]:
    """Run each collective.

    Args:
        most: Bytes that one may take; less where the GPU's memory is small.

    Returns:
        Collective -> `bytes`, `seconds` of one on this rank, and whether its result was `exact`.
    """
    cuda = os.environ["STACK_DEVICE"] == "cuda"
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    size = torch.tensor([min(most, torch.cuda.mem_get_info()[0] // PART_OF_MEMORY) if cuda else most], device=device)
    dist.all_reduce(size, op=dist.ReduceOp.MIN)
    numbers = int(size) // 4 // world * world
    made = {}
    for case in cases(rank, world, numbers, device):
        case.run()
        wanted = torch.tensor(case.wanted, dtype=torch.float32, device=device).view(-1, 1)
        exact = bool((case.result.view(len(case.wanted), -1) == wanted).all())
        made[case.name] = {"bytes": 4 * numbers, "seconds": seconds(case.run, device), "exact": exact}
        del case  # and with it its buffers, before the next has its own
    dist.barrier()
    dist.destroy_process_group()
    return made


class Case(NamedTuple):
    """A collective with its buffers, each made of as many equal blocks as there are ranks."""

    name: str
    run: Callable[[], object]
    result: Tensor
    wanted: Sequence[float]
    """The number that each block of the result must hold."""


def cases(rank: int, world: int, numbers: int, device: torch.device) -> Iterator[Case]:
    """The collectives, one after the other, so that only one has its buffers.

    Args:
        rank: This one.
        world: How many ranks.
        numbers: float32 numbers in a whole buffer; a multiple of `world`.
        device: Where the buffers are.
    """
    total = world * (world + 1) / 2

    def whole() -> Tensor:
        return torch.full((numbers,), rank + 1.0, device=device)

    def part() -> Tensor:
        return torch.full((numbers // world,), rank + 1.0, device=device)

    def all_reduce() -> Case:
        one = whole()
        return Case("all_reduce", lambda: dist.all_reduce(one), one, [total] * world)

    def all_gather() -> Case:
        one, every = part(), whole()
        return Case("all_gather", lambda: dist.all_gather_single(every, one), every, [r + 1 for r in range(world)])

    def reduce_scatter() -> Case:
        every, one = whole(), part()
        return Case("reduce_scatter", lambda: dist.reduce_scatter_single(one, every), one, [total])

    def all_to_all() -> Case:
        sent, received = whole(), whole()
        # Block r of rank s holds (s + 1) * world + r.
        sent.view(world, -1).mul_(world).add_(torch.arange(world, device=device).view(-1, 1))
        wanted = [(r + 1) * world + rank for r in range(world)]
        return Case("all_to_all", lambda: dist.all_to_all_single(received, sent), received, wanted)

    def broadcast() -> Case:
        one = whole()
        return Case("broadcast", lambda: dist.broadcast(one, src=0), one, [1] * world)

    for make in (all_reduce, all_gather, reduce_scatter, all_to_all, broadcast):
        yield make()


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """What one call takes, the mean of ROUNDS."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM_UPS):
        run()
    finish()
    dist.barrier()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        run()
    finish()
    return (time.perf_counter() - began) / ROUNDS
