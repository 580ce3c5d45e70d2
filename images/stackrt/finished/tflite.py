"""A Keras model as a TFLite file (LiteRT), whole or rounded after training; and how such a file computes."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]
"""Pictures [batch, height, width, channels], from 0 to 1, to scores."""

WAYS = {
    "tflite": "32-bit numbers",
    "fp16": "weights of two bytes",
    "int8-dynamic": "weights of eight bits; what is multiplied with them is rounded as it comes",
    "int8": "weights of eight bits, and all that is computed, by the ranges that real pictures reach",
}


def convert(model: Any, way: str, samples: Array) -> bytes:
    """A TFLite file's content.

    Args:
        model: A Keras model.
        way: One of `WAYS`.
        samples: Real pictures, by which `int8` finds the ranges; the others ignore them.
    """
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder, silenced():
        model.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if way != "tflite":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if way == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        if way == "int8":
            converter.representative_dataset = lambda: ([picture[None]] for picture in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        content: bytes = converter.convert()
    return content


def interpret(content: bytes, threads: int) -> Run:
    """A file's content as a function; each size of batch is prepared for when it comes first."""
    prepared: dict[int, tuple[Any, int, int]] = {}

    def prepare(size: int) -> tuple[Any, int, int]:
        with warnings.catch_warnings(), silenced():
            warnings.simplefilter("ignore")  # that it will move to a package of its own
            interpreter = tf.lite.Interpreter(model_content=content, num_threads=threads)
            (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
            interpreter.resize_tensor_input(given["index"], [size, *given["shape"][1:]])
            interpreter.allocate_tensors()
        return interpreter, given["index"], answer["index"]

    def run(pictures: Array) -> Array:
        size = len(pictures)
        if size not in prepared:
            prepared[size] = prepare(size)
        interpreter, given, answer = prepared[size]
        interpreter.set_tensor(given, np.ascontiguousarray(pictures, np.float32))
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(answer))

    return run


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Without what the converter's C++ says to standard error."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
