"""What the digit trainers share, whatever their framework: options, data and report. They hold model and loop."""

import argparse
import gzip
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stackrt.train import report
from stackrt.train.errors import BadInputError, TrainerError, complain

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int64]
DATA = Path(__file__).parent / "data" / "digits.csv.gz"
THREADS = 1  # a network this small is no faster with more, and alone it trains bit for bit as beside others
TEST = 261  # pictures kept for validation; 1,536 are left to train on


@dataclass(frozen=True)
class Options:
    """Everything a run depends on, apart from the ranks."""

    steps: int
    batch_size: int
    lr: float
    seed: int
    log_every: int
    out: Path


def parse(argv: Sequence[str], what: str) -> Options:
    """Read a command line.

    Raises:
        BadInputError: A number is out of range.
    """
    parser = argparse.ArgumentParser(description=what, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=128, help="pictures of one step over all ranks together")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("STACK_OUT", "out")))
    options = Options(**vars(parser.parse_args(argv)))
    for name in ("steps", "batch_size", "log_every"):
        if getattr(options, name) < 1:
            raise BadInputError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if not options.lr > 0:
        raise BadInputError(f"--lr {options.lr}: must be above 0")
    return options


def load() -> tuple[Floats, Whole, Floats, Whole]:
    """Pictures [n, 8, 8, 1] from 0 to 1 and their labels: to train on, then to validate."""
    with gzip.open(DATA, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    pictures = (table[:, :64].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = table[:, 64]
    return pictures[:-TEST], labels[:-TEST], pictures[-TEST:], labels[-TEST:]


def batch(o: Options, step: int, rank: int, world_size: int, count: int) -> Whole:
    """Indices of a rank's pictures in a step.

    The step's pictures as a whole depend on seed and step only, so any number of ranks computes the same step.

    Args:
        o: The options; `batch_size` is divided among the ranks.
        step: Steps done.
        rank: This rank.
        world_size: Number of ranks.
        count: Pictures to choose from.

    Raises:
        BadInputError: The batch cannot be shared out evenly.
    """
    if o.batch_size % world_size:
        raise BadInputError(f"--batch-size {o.batch_size}: {world_size} ranks cannot share it evenly")
    first = step * o.batch_size
    epochs = range(first // count, (first + o.batch_size - 1) // count + 1)
    order = np.concatenate([np.random.default_rng([o.seed, epoch]).permutation(count) for epoch in epochs])
    start = first - epochs[0] * count
    return order[start : start + o.batch_size][rank::world_size]


class Report:
    """What rank 0 prints and leaves in the run's folder; on other ranks it does nothing.

    Args:
        o: The options.
        workload: Name for `result.json`.
        rank: This rank.
        world_size: Number of ranks.
        device: `cpu` or `cuda`.
    """

    def __init__(self, o: Options, workload: str, rank: int, world_size: int, device: str = "cpu") -> None:
        self._o, self._workload, self._world_size, self._device = o, workload, world_size, device
        self._rows: list[report.Row] = []
        self._began = self._warm = time.perf_counter()
        self._metrics: report.Metrics | None = None
        if rank == 0:
            report.prepare_folder(o.out)
            self._metrics = report.Metrics(o.out, -1)
            print(
                f"{workload}  {world_size} ranks on {device}, {o.batch_size} pictures a step, seed {o.seed}", flush=True
            )

    def due(self, step: int) -> bool:
        """Whether step `step` (from 1) is logged; its loss is then asked for on every rank."""
        if step == min(report.WARM_STEPS, self._o.steps - 1):
            self._warm = time.perf_counter()
        return step in (1, self._o.steps) or step % self._o.log_every == 0

    def add(self, step: int, loss: float) -> None:
        """Log the mean training loss of a step.

        Raises:
            TrainerError: It is not a number.
        """
        if not np.isfinite(loss):
            raise TrainerError(f"the training loss is {loss} at step {step}; try a lower --lr")
        self._rows.append({"step": step, "loss": loss})
        if self._metrics:
            self._metrics.add(self._rows[-1])
            print(f"step {step:>4}/{self._o.steps}  loss {loss:.4f}", flush=True)

    def finish(self, weights: Mapping[str, Floats], accuracy: float) -> None:
        """Write `weights.npz` and `result.json`.

        Args:
            weights: Name -> values of every trained parameter.
            accuracy: Part of the validation pictures that is read rightly.
        """
        if not self._metrics:
            return
        self._metrics.close()
        o, seconds = self._o, time.perf_counter() - self._warm
        with report.writing(o.out / "weights.npz"):
            np.savez(o.out / "weights.npz", **dict[str, Any](weights))
        timed = o.steps - min(report.WARM_STEPS, o.steps - 1)
        speed = timed * o.batch_size / seconds
        report.write_result(o.out / "result.json", {
            "workload": self._workload, "steps": o.steps, "seed": o.seed, "world_size": self._world_size,
            "device": self._device, "samples": o.steps * o.batch_size, "samples_per_second": speed,
            "seconds": round(time.perf_counter() - self._began, 3), "parameters": sum(w.size for w in weights.values()),
            "first_train_loss": self._rows[0]["loss"], "last_train_loss": self._rows[-1]["loss"],
            "accuracy": accuracy, "params_sha256": report.arrays_sha256(weights),
            "options": {name: str(value) if name == "out" else value for name, value in asdict(o).items()},
        })  # fmt: skip
        print(f"done    accuracy {accuracy:.3f}, {speed:,.0f} pictures per second", flush=True)


def main(run: Callable[[Options], None], argv: Sequence[str], what: str) -> int:
    """Run a trainer; expected failures become one line and an exit code."""
    try:
        run(parse(argv, what))
    except TrainerError as error:
        return complain(error)
    return 0
