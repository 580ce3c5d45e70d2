"""Which pictures a step takes: by seed and position alone, so a run that goes on reads on, on any devices."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Stretch(NamedTuple):
    """One call of `fit`: `epochs` times `steps` steps, the first of which is step `start` of the run."""

    start: int
    steps: int
    epochs: int


def stretches(start: int, end: int, per_epoch: int) -> list[Stretch]:
    """Cut the steps from `start` to `end` where epochs end, so that each is reported where it would be without a break.

    A run that was stopped within an epoch begins with the rest of it, and one whose `--steps` end within one ends so.
    """
    found, at = [], start
    if rest := min(-start % per_epoch, end - start):
        found.append(Stretch(at, rest, 1))
        at += rest
    if whole := (end - at) // per_epoch:
        found.append(Stretch(at, per_epoch, whole))
        at += whole * per_epoch
    if at < end:
        found.append(Stretch(at, end - at, 1))
    return found


def order(seed: int, start: int, end: int, batch_size: int, count: int) -> npt.NDArray[np.int32]:
    """Indices [steps, batch] of the pictures of the steps from `start` to `end`; each epoch has each picture once."""
    first, last = start * batch_size, end * batch_size
    epochs = range(first // count, (last - 1) // count + 1)
    pictures = [np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32) for epoch in epochs]
    skipped = first - epochs[0] * count
    return np.concatenate(pictures)[skipped : skipped + last - first].reshape(-1, batch_size)
