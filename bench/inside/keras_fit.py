"""Runs in the image: pictures a second of a bare `fit`, or of the trainer `keras`, on the same pictures and network.

python keras_fit.py bare|ours STEPS
"""

import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stackrt.keras import networks, options, train
from stackrt.keras.fitting import Fitting
from stackrt.pictures.data import Pictures, Split

COUNT = 12_800
dice = np.random.default_rng(0)


def part(count: int) -> Split:
    return Split(dice.integers(0, 256, (count, 28, 28, 1), np.uint8), dice.integers(0, 10, count))


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """The time of all epochs but the first, in which functions are traced."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += (time.perf_counter() - self._began) * (epoch > 0)


def main() -> None:
    kind, steps = sys.argv[1], int(sys.argv[2])
    data = Pictures("made", part(COUNT), part(128), part(128), tuple("0123456789"), 255, "")
    o = options.parse(["--out", "/tmp/bench", "--steps", str(steps), "--checkpoint-every", "1000"])
    o.out.mkdir(parents=True, exist_ok=True)
    per_epoch = COUNT // o.batch_size
    if kind == "bare":
        model = networks.build(o, data.shape, 10, steps)
        pictures, clock = data.floats(data.train.pictures), Clock()
        model.fit(pictures, data.train.labels, o.batch_size, steps // per_epoch, verbose=0, callbacks=[clock])
        print((steps - per_epoch) * o.batch_size / clock.seconds)
        return
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    model = networks.build(o, data.shape, 10, steps)
    fitting = Fitting(o, model, {}, steps, per_epoch, print)
    fitting.resume()
    train.fit(o, fitting, data, [])
    print(fitting.speed)


if __name__ == "__main__":
    Path("/tmp/bench").mkdir(exist_ok=True)
    main()
