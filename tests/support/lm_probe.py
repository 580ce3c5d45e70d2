"""The sharded trainer, which also writes down the gradients of its first step: `gradients.pt` beside its reports."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from stackrt.train import lm, mesh
from stackrt.train.ranks import Ranks

clip_by_norm = mesh.clip_by_norm


def main(argv: list[str]) -> int:
    """Run the trainer."""
    path = Path(argv[argv.index("--out") + 1]) / "gradients.pt"

    def recorded(
        parameters: Iterable[Tensor],
        most: float,
        ranks: Ranks,
        copies: Callable[[Tensor, int], int] = mesh.copies_of,
    ) -> Tensor:
        held = list(parameters)
        if not path.exists():
            gradients = [mesh.whole(p.grad) for p in held if p.grad is not None]
            if ranks.first:
                torch.save(gradients, path)
        return clip_by_norm(held, most, ranks, copies)

    mesh.clip_by_norm = recorded
    return lm.main(argv)
