"""Going on from a checkpoint so that nothing shows the break: which one, the same on all ranks, and random state."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stackrt.train import checkpoint
from stackrt.train.ranks import Ranks


class Resumed(NamedTuple):
    """The checkpoint that a run goes on from."""

    path: str
    state: checkpoint.State


def find(folder: Path, choice: str, ranks: Ranks, wanted: dict[str, Any], say: Callable[[str], None]) -> Resumed | None:
    """The checkpoint to go on from, or None for step 0; rank 0 chooses and reads it, so only it needs the disk.

    Args:
        folder: Where this run keeps its checkpoints.
        choice: `auto` (the newest good one in `folder`), `none`, or a checkpoint's path.
        ranks: All of them get the same answer.
        wanted: The run's identity, see `checkpoint.same_run`.
        say: Told about checkpoints that are refused or moved out of the way.

    Raises:
        BadInputError: The named checkpoint cannot be used, or it is another run's.
    """
    found: tuple[Path, checkpoint.State] | None = None
    with ranks.together():
        if ranks.first:
            if choice == "auto":
                found = checkpoint.newest(folder, say)
            elif choice != "none":
                found = Path(choice), checkpoint.named(Path(choice))
            if found:
                checkpoint.same_run(*found, wanted)
            checkpoint.tidy(folder, found[1]["step"] if found else -1, say)
    shared = ranks.state_from_first((str(found[0]), found[1]) if found else None)
    return Resumed(*shared) if shared else None


def random_state(ranks: Ranks) -> dict[str, Any]:
    """The state of every random generator that a step on this rank may draw from."""
    cuda = torch.cuda.get_rng_state(ranks.device) if ranks.device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_random_state(states: list[dict[str, Any]], ranks: Ranks) -> None:
    """Put this rank's generators back to where `random_state` found them.

    Where a run goes on with another number of ranks, nobody has their states: they keep those of their seeds.
    """
    if len(states) != ranks.world_size:
        return
    state = states[ranks.rank]
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], ranks.device)
    random.setstate(state["python"])
