"""What a trainer of pictures prints and leaves in the run's folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stackrt.pictures.data import Floats, Pictures
from stackrt.pictures.options import Options, describe
from stackrt.train import report
from stackrt.train.errors import TrainerError


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
        self._first = rank == 0
        self._began = self._warm = time.perf_counter()
        self._timed = 0
        self._start = 0
        self._metrics: report.Metrics | None = None
        self.history: dict[str, float] = {}
        """The first and last loss so far; goes into checkpoints."""
        if self._first:
            report.prepare_folder(o.out)

    def say(self, line: str) -> None:
        """Print a line."""
        if self._first:
            print(line, flush=True)

    def begin(self, data: Pictures, start: int, history: Mapping[str, float]) -> None:
        """Open the run's files, for a run that goes on after step `start`.

        Args:
            data: What is trained on.
            start: Steps done by an earlier attempt.
            history: That attempt's `history`.
        """
        self._start, self.history = start, dict(history)
        if self._first:
            self._metrics = report.Metrics(self._o.out, start if start else -1)
        self.say(data.about)
        self.say(
            f"{self._workload}  {self._world_size} ranks on {self._device}, {self._o.batch_size} pictures a step, "
            f"seed {self._o.seed}"
        )
        self._warm = time.perf_counter()

    def due(self, step: int) -> bool:
        """Whether step `step` (from 1) is logged; its loss is then asked for on every rank."""
        warm = min(self._start + report.WARM_STEPS, self._o.steps - 1)
        if step == warm:
            self._warm = time.perf_counter()
        self._timed = step - max(warm, self._start)
        return step in (1, self._o.steps) or step % self._o.log_every == 0

    def add(self, step: int, loss: float, **more: float) -> None:
        """Log the mean training loss of a step, and what else is known of it.

        Raises:
            TrainerError: The loss is not a number.
        """
        if not np.isfinite(loss):
            raise TrainerError(f"the training loss is {loss} at step {step}; try a lower --lr")
        self.history.setdefault("first_train_loss", loss)
        self.history["last_train_loss"] = loss
        if self._metrics:
            self._metrics.add({"step": step, "loss": loss, **more})
        told = "".join(f"  {name.replace('_', ' ')} {value:.4g}" for name, value in more.items())
        self.say(f"step {step:>4}/{self._o.steps}  loss {loss:.4f}{told}")

    def sync(self) -> None:
        """Put the rows on disk, before a checkpoint."""
        if self._metrics:
            self._metrics.sync()

    def close(self) -> None:
        """Close the files of a run that ends early."""
        if self._metrics:
            self._metrics.close()

    def finish(self, weights: Mapping[str, Floats], accuracy: float, **more: Any) -> None:
        """Write `weights.npz` and `result.json`.

        Args:
            weights: Name -> values of every trained parameter.
            accuracy: Part of the test pictures that is read rightly.
            more: What else `result.json` says.
        """
        if not self._metrics:
            return
        self._metrics.close()
        o, seconds = self._o, max(time.perf_counter() - self._warm, 1e-9)
        write_weights(o.out / "weights.npz", weights)
        speed = self._timed * o.batch_size / seconds if self._timed > 0 else None
        report.write_result(o.out / "result.json", {
            "workload": self._workload, "steps": o.steps, "seed": o.seed, "world_size": self._world_size,
            "device": self._device, "samples": o.steps * o.batch_size, "samples_per_second": speed,
            "seconds": round(time.perf_counter() - self._began, 3), "parameters": sum(w.size for w in weights.values()),
            **self.history, "accuracy": accuracy, **more, "params_sha256": report.arrays_sha256(weights),
            "options": describe(o),
        })  # fmt: skip
        self.say(f"done    accuracy {accuracy:.3f}" + (f", {speed:,.0f} pictures per second" if speed else ""))


def write_weights(path: Path, weights: Mapping[str, Floats]) -> None:
    """Write arrays by name, as `np.load` reads them; there is a whole file or none.

    Raises:
        TrainerError: The disk is full or failing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with report.writing(path):
        try:
            with temporary.open("wb") as file:
                np.savez(file, **dict[str, Any](weights))
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
