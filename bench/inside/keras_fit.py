"""Runs in the image: a bare `fit` and the trainer `keras` in turn, on the same pictures and network.

python keras_fit.py ROUNDS     prints for each of the two, by round, the seconds and the CPU seconds of an epoch

They are two processes, one of which trains while the other waits: what is measured side by side meets the same noise.
"""

import json
import subprocess
import sys
import time
from typing import Any

COUNT = 12_800
"""Pictures of an epoch."""
KINDS = ("bare", "ours")


def child(kind: str, rounds: int) -> None:
    """Train, an epoch for each line of standard input; the first one, in which functions are traced, is not told."""
    import keras
    import numpy as np
    import tensorflow as tf

    from stackrt.keras import networks, options, train
    from stackrt.keras.fitting import Fitting
    from stackrt.pictures.data import Pictures, Split

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        """Waits before an epoch, and tells the time of its training: validation is not part of it."""

        began: tuple[float, float] | None = None
        warm = False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            sys.stdin.readline()
            super().on_epoch_begin(epoch, logs)
            self.began = time.perf_counter(), time.process_time()

        def tell(self) -> None:
            if self.began:
                now = time.perf_counter(), time.process_time()
                took = [after - before for after, before in zip(now, self.began, strict=True)]
                print(json.dumps(took if self.warm else None), flush=True)
                self.began, self.warm = None, True

        def on_test_begin(self, logs: Any = None) -> None:
            self.tell()
            super().on_test_begin(logs)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.tell()
            super().on_epoch_end(epoch, logs)

    class Ours(Turns, Fitting):
        pass

    dice = np.random.default_rng(0)

    def part(count: int) -> Split:
        return Split(dice.integers(0, 256, (count, 28, 28, 1), np.uint8), dice.integers(0, 10, count))

    data = Pictures("made", part(COUNT), part(128), part(128), tuple("0123456789"), 255, "")
    o = options.parse(["--out", "/tmp/bench", "--epochs", str(rounds + 1), "--checkpoint-every", "1000"])
    o.out.mkdir(parents=True, exist_ok=True)
    per_epoch = COUNT // o.batch_size
    steps = per_epoch * o.epochs
    if kind == "bare":
        model = networks.build(o, data.shape, 10, steps)
        pictures = data.floats(data.train.pictures)
        model.fit(pictures, data.train.labels, o.batch_size, o.epochs, verbose=0, callbacks=[Turns()])
        return
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    fitting = Ours(o, networks.build(o, data.shape, 10, steps), {}, steps, per_epoch, lambda _line: None)
    fitting.resume()
    train.fit(o, fitting, data, [])


def main(rounds: int) -> None:
    """Give the two their turns."""
    started = {}
    for kind in KINDS:
        argv = [sys.executable, __file__, str(rounds), kind]
        started[kind] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS if number % 2 else reversed(KINDS):
            process = started[kind]
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline())
            if said:
                found[kind].append(said)
    print(json.dumps({"pictures": COUNT, **found}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(sys.argv[2], int(sys.argv[1]))
    else:
        main(int(sys.argv[1]))
