"""Which pictures a step trains on: by seed and position alone, so any number of ranks computes the same step."""

import functools
import math

import numpy as np

from stackrt.pictures.formats import Whole
from stackrt.pictures.options import Options
from stackrt.train.errors import BadInputError


def check(batch_size: int, world_size: int, count: int) -> None:
    """See that there are pictures for a step, and that the ranks can share it.

    Args:
        batch_size: Of one step over all ranks.
        world_size: Number of ranks.
        count: Pictures to train on.

    Raises:
        BadInputError: There are not, or they cannot.
    """
    if batch_size > count:
        raise BadInputError(f"--batch-size {batch_size}: there are {count} pictures to train on")
    if batch_size % world_size:
        raise BadInputError(
            f"--batch-size {batch_size}: {world_size} ranks cannot share it evenly; choose a multiple of {world_size}"
        )


def batch(o: Options, step: int, rank: int, world_size: int, count: int) -> Whole:
    """Indices of a rank's pictures in a step; every epoch has every picture once, in an order of its own.

    Args:
        o: The options; `batch_size` is divided among the ranks.
        step: Steps done.
        rank: This rank.
        world_size: Number of ranks.
        count: Pictures to choose from.

    Raises:
        BadInputError: As `check`.
    """
    check(o.batch_size, world_size, count)
    first = step * o.batch_size
    epochs = range(first // count, (first + o.batch_size - 1) // count + 1)
    order = np.concatenate([_order(o.seed, epoch, count) for epoch in epochs])
    start = first - epochs[0] * count
    return order[start : start + o.batch_size][rank::world_size]


def learning_rate(o: Options, step: int) -> float:
    """The rate of step 0, 1, …: constant, or half a cosine from `--lr` down to nothing."""
    if o.schedule == "constant":
        return o.lr
    return o.lr * 0.5 * (1 + math.cos(math.pi * step / o.steps))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Whole:
    return np.random.default_rng([seed, epoch]).permutation(count)
