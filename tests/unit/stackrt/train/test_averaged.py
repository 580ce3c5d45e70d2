"""Gradients of copies of a model: groups, several passes, and parameters without one; all on one rank."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore

from stackrt.train import ranks
from stackrt.train.ranks import Averaged


@pytest.fixture(autouse=True)
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_the_last_parameters_are_summed_first_and_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_FIRST_BYTES", 8)
    monkeypatch.setattr(ranks, "_GROUP_BYTES", 40)
    held = [nn.Parameter(torch.zeros(size)) for size in (1, 8, 3, 2)]
    assert [[p.numel() for p in found] for found in ranks._grouped(held[::-1])] == [[2], [3, 8], [1]]


def test_passes_add_up_and_what_is_not_used_has_zeros(
    group: dist.ProcessGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_FIRST_BYTES", 8)
    monkeypatch.setattr(ranks, "_GROUP_BYTES", 8)
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    averaged = Averaged(layers.parameters(), group)
    for _ in range(2):  # steps
        for last in (False, False, True):
            averaged.wanted = last
            layers[2](layers[0](torch.ones(1, 2))).sum().backward()
        averaged.wait()
        found = [p.grad.clone() for p in layers.parameters() if p.grad is not None]
        layers.zero_grad()
        averaged.wanted = False
        (3 * layers[2](layers[0](torch.ones(1, 2))).sum()).backward()
        for mine, p in zip(found, layers.parameters(), strict=True):
            torch.testing.assert_close(mine, torch.zeros_like(p) if p.grad is None else p.grad)
        layers.zero_grad()
