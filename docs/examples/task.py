"""What the programs beside this file train: a small network on made-up data. Put your own model and data here.

A step's batch is split over the ranks, so one rank or many see the same data, and all programs end with the same loss.
"""

import torch
from torch import nn

STEPS = 100
BATCH = 64
LEARNING_RATE = 0.5


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """2,048 rows of 20 numbers, and the class of each, 0 to 9."""
    made = torch.Generator().manual_seed(0)
    rows = torch.randn(2048, 20, generator=made)
    return rows, (rows @ torch.randn(20, 10, generator=made)).argmax(dim=1)


def model() -> nn.Module:
    """A multilayer perceptron; the same weights in every process."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def batch(step: int, rank: int = 0, ranks: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """A rank's rows of a step's batch, and their classes."""
    rows, classes = data()
    first = step * BATCH % len(rows)
    return rows[first + rank : first + BATCH : ranks], classes[first + rank : first + BATCH : ranks]


@torch.no_grad()
def tell(trained: nn.Module) -> None:
    """Print the loss over all data."""
    rows, classes = (part.to(next(trained.parameters()).device) for part in data())
    print(f"loss {nn.functional.cross_entropy(trained(rows), classes):.5f}", flush=True)
