"""What stands beside `fit`: rows of the report, early stopping, checkpoints, the profile, and the end at a signal."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stackrt.keras import networks, trace
from stackrt.keras.options import Options, profile_window
from stackrt.train import checkpoint, report
from stackrt.train.errors import BadInputError, TrainerError


class Stopped(Exception):
    """A signal asked to end, and the step that was under way is done."""


class Fitting(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """A training's state, carried over stretches of `fit` and over the process's end.

    Keras's own callbacks for early stopping and backup forget how long they have waited, and begin an epoch anew that
    was interrupted. Here a run that goes on does the same steps as one without a break.

    Args:
        o: The options.
        model: The compiled network, with its optimizer built.
        identity: See `checkpoint.same_run`.
        end: Steps of the whole run.
        per_epoch: Steps of an epoch.
        say: Prints a line.
    """

    def __init__(
        self, o: Options, model: keras.Model, identity: dict[str, Any], end: int, per_epoch: int,
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        super().__init__()
        self._o, self.network, self._identity, self._say = o, model, identity, say
        self.end, self.per_epoch = end, per_epoch
        self.done = 0
        """Steps done."""
        self.over = False
        """Whether the validation loss has not become better for `--patience` epochs."""
        self.history: dict[str, Any] = {}
        """Losses and the like; goes into checkpoints."""
        self.heard: Sequence[int] = ()
        """Signals that have come."""
        self._best: dict[str, Any] = {}
        self._saved = -1
        self._metrics: report.Metrics | None = None
        self._profile_first, self._profile_last = profile_window(o.profile)
        self._profiling = False
        self._mark: float | None = None
        self._warm = self._marked = self._timed = 0
        self._seconds = 0.0

    @property
    def speed(self) -> float | None:
        """Pictures a second of training alone, without this process's first steps; None if there were no others."""
        return self._timed * self._o.batch_size / self._seconds if self._seconds else None

    def resume(self) -> str | None:
        """Take over the checkpoint to go on from; returns its path. Call it in the strategy's scope.

        Raises:
            BadInputError: The named checkpoint cannot be used, or it is another run's.
        """
        o, folder = self._o, self._o.out / "checkpoints"
        found: tuple[Path, checkpoint.State] | None = None
        if o.resume == "auto":
            found = checkpoint.newest(folder, self._say)
        elif o.resume != "none":
            found = Path(o.resume), checkpoint.named(Path(o.resume))
        if found:
            checkpoint.same_run(*found, self._identity)
            state = found[1]
            if state["step"] > self.end:
                raise BadInputError(f"{found[0]} is of step {state['step']}, after the last one, {self.end}")
            for name, variable in self._variables().items():
                variable.assign(state["variables"][name])
            self.done, self.over, self.history = state["step"], state["over"], state["history"]
            self._best = state.get("best", {})
        checkpoint.tidy(folder, self.done if found else -1, self._say)
        self._metrics = report.Metrics(o.out, self.done if found else -1)
        self._saved = self.done if found else -1
        self._warm = self.done + report.WARM_STEPS
        return str(found[0]) if found else None

    def save(self) -> Path:
        """Write a checkpoint of the step that is done."""
        if self._metrics:
            self._metrics.sync()
        folder = self._o.out / "checkpoints"
        if self._saved == self.done:
            return folder / f"step-{self.done:06d}.npz"
        self._saved = self.done
        state = {
            "step": self.done, "fingerprint": self._identity, "history": self.history, "over": self.over,
            "variables": {name: np.asarray(variable) for name, variable in self._variables().items()},
            "best": self._best,
        }  # fmt: skip
        return checkpoint.save(folder, self.done, state, self._o.keep, "npz")

    def take_best(self) -> None:
        """Go back to the weights with the best validation loss, where `--patience` asks for it."""
        for variable in self.network.variables if self._best else ():
            variable.assign(self._best[variable.path])

    def close(self) -> None:
        """Close the report's files."""
        self._stop_profile()
        if self._metrics:
            self._metrics.close()

    def _variables(self) -> dict[str, Any]:
        """All that training changes: weights, states of random generators, and what the optimizer keeps."""
        return {variable.path: variable for variable in (*self.network.variables, *self.network.optimizer.variables)}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        self._mark, self._marked = time.perf_counter(), self.done

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: D102
        if self._profile_first and self.done + 1 == self._profile_first:
            # Where TensorBoard's plugin looks: below the folder of the run's events.
            tf.profiler.experimental.start(str(self._o.out / "tensorboard"))
            self._profiling = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: D102
        self.done += 1
        if self._profiling and self.done >= self._profile_last:
            self._stop_profile()
        if self.done == self._warm:
            self._mark, self._marked = time.perf_counter(), self.done
        if self.heard:
            raise Stopped

    def on_test_begin(self, logs: Any = None) -> None:
        """Validation follows an epoch's steps; it is no part of the time of training."""
        self._pause()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: D102
        self._pause()
        found = {name: float(value) for name, value in logs.items()}
        if not math.isfinite(found["loss"]):
            raise TrainerError(f"the training loss is {found['loss']} at step {self.done}; try a lower --lr")
        for name, key in (("loss", "train_loss"), ("val_loss", "val_loss")):
            self.history.setdefault(f"first_{key}", found[name])
            self.history[f"last_{key}"] = found[name]
        row: report.Row = {"step": self.done, **found, "lr": networks.rate_at(self._o, self.end, self.done - 1)}
        if self._metrics:
            self._metrics.add(row)
        self._say(
            f"epoch {epoch + 1}  step {self.done}/{self.end}  loss {found['loss']:.4f}, {found['accuracy']:.3f}"
            f"  validation {found['val_loss']:.4f}, {found['val_accuracy']:.3f}  lr {row['lr']:.1e}"
            + (f"  {self.speed:,.0f} pictures/s" if self.speed else "")
        )
        self._wait(found["val_loss"])
        if self.done == self.end or self.over or (epoch + 1) % self._o.checkpoint_every == 0:
            self.save()

    def _wait(self, loss: float) -> None:
        """Early stopping."""
        if not self._o.patience:
            return
        if loss < self.history.get("best_loss", math.inf):
            self.history |= {"best_loss": loss, "best_step": self.done, "waited": 0}
            self._best = {variable.path: np.array(variable) for variable in self.network.variables}
            return
        self.history["waited"] = self.history.get("waited", 0) + 1
        if self.history["waited"] >= self._o.patience:
            self.over = self.network.stop_training = True
            self._say(f"ends here: no better validation loss since step {self.history.get('best_step')}")

    def _pause(self) -> None:
        """End a stretch of training's own time."""
        if self._mark is not None and self._marked >= self._warm:
            self._seconds += time.perf_counter() - self._mark
            self._timed += self.done - self._marked
        self._mark = None

    def _stop_profile(self) -> None:
        if self._profiling:
            tf.profiler.experimental.stop()
            self._profiling = False
            folder, to = self._o.out / "tensorboard", self._o.out / "profile" / "trace.json.gz"
            if written := trace.newest(folder):
                with report.writing(to):
                    to.parent.mkdir(exist_ok=True)
                    trace.write(written, to)
            self._say(f"profile of steps {self._profile_first} to {self.done}: {to}, and {folder} for TensorBoard")
