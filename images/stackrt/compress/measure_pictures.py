"""What a model of pictures is worth: read in a fresh process, its accuracy, loss and latency by turns.

python -m stackrt.compress.measure_pictures ORDER.json ANSWER.json
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from stackrt.compress import fresh
from stackrt.compress.latency import BATCHES, by_turns
from stackrt.finished import pictures, tflite
from stackrt.pictures import data as sets

Array = npt.NDArray[Any]


def function_of(file: Path, threads: int) -> tuple[tflite.Run, int, int]:
    """A file's model as a function, its parameters, and how many of them are not zero (of TFLite: all count)."""
    if file.suffix == ".tflite":
        return tflite.interpret(file.read_bytes(), threads), 0, 0
    model = pictures.open_model(file).model
    call = tf.function(lambda x: model(x, training=False))
    weights = [np.asarray(weight) for weight in model.trainable_weights]
    counts = sum(weight.size for weight in weights), sum(int(np.count_nonzero(weight)) for weight in weights)
    return (lambda x: np.asarray(call(tf.constant(x)))), *counts


def loss_of(scores: Array, labels: Array) -> float:
    """Mean cross-entropy, in nats a picture."""
    scores = scores.astype(np.float64)
    largest = scores.max(axis=1, keepdims=True)
    likely = scores - largest - np.log(np.exp(scores - largest).sum(axis=1, keepdims=True))
    return float(-likely[np.arange(len(labels)), labels].mean())


def measure(order: dict[str, Any]) -> dict[str, Any]:
    """Read the models of an order, and measure each.

    Raises:
        BadInputError: One cannot be read.
    """
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(order["threads"])
    data = sets.load(order["data"], Path(order["cache"]))
    test = data.floats(data.test.pictures)
    labels = np.asarray(data.test.labels, np.int64)
    runs: dict[str, tflite.Run] = {}
    rows: dict[str, dict[str, Any]] = {}
    parameters = nonzero = 0
    for name, file in order["files"].items():
        runs[name], *counts = function_of(Path(file), order["threads"])
        parameters, nonzero = counts if counts[0] else (parameters, nonzero)  # a conversion keeps their number
        scores = np.concatenate([runs[name](test[at : at + 32]) for at in range(0, len(test), 32)])
        rows[name] = {"bytes": Path(file).stat().st_size, "parameters": parameters, "nonzero": nonzero,
                      "loss": loss_of(scores, labels), "accuracy": float(np.mean(scores.argmax(1) == labels)),
                      "latency_ms": {}}  # fmt: skip
    for size in BATCHES:
        batch = test[np.arange(size) % len(test)]

        def seconds(run: tflite.Run, batch: Array = batch) -> float:
            began = time.perf_counter()
            run(batch)
            return time.perf_counter() - began

        for name, latency in by_turns(runs, seconds, order["repeats"]).items():
            rows[name]["latency_ms"][str(size)] = latency
    return {"models": rows}


if __name__ == "__main__":
    sys.exit(fresh.answer(measure))
