"""What the checks of TensorFlow run in each worker, and the network that those of Horovod train too."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras  # Keras 3 leaves tf.distribute to this, its predecessor

STEPS, ROWS, WIDTH, LEARNING_RATE, SEED = 3, 32, 16, 0.1, 0


def train() -> dict[str, Any]:
    """Train a small network under MultiWorkerMirroredStrategy, then alone, and compare on this worker.

    Returns:
        `sha256` of the weights, and their `error` against those of one process.
    """
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    take_device(rank)
    # Before any other operation: this starts the server that the other worker looks for.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    world = strategy.num_replicas_in_sync
    with strategy.scope():
        model, optimizer = network(SEED)
    alone, alone_optimizer = network(SEED)
    shared_step, plain_step = step_of(model, optimizer), tf.function(step_of(alone, alone_optimizer))
    together = tf.function(lambda x, y: strategy.run(shared_step, args=(x, y)))

    for step in range(STEPS):
        x, y = batch(step)
        together(tf.constant(x[rank::world]), tf.constant(y[rank::world]))
        plain_step(tf.constant(x), tf.constant(y))
    weights = [variable.numpy() for variable in model.trainable_variables]
    digest = hashlib.sha256(b"".join(values.tobytes() for values in weights)).hexdigest()
    result = {"sha256": digest, "error": error(model.trainable_variables, alone.trainable_variables)}
    with suppress(tf.errors.OpError):  # none leaves while another still fetches a sum from it, as cnn's `leave`
        together(tf.constant(x[rank::world]), tf.constant(y[rank::world]))
    return result


def take_device(local_rank: int) -> None:
    """Leave this rank its own GPU, or none on a CPU; a strategy would take all that it sees."""
    gpus = tf.config.list_physical_devices("GPU") if os.environ["STACK_DEVICE"] == "cuda" else []
    tf.config.set_visible_devices(gpus[local_rank : local_rank + 1], "GPU")


def network(seed: int) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Two dense layers; one seed gives every rank the same weights."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(32, "relu", input_shape=(WIDTH,)), keras.layers.Dense(1)]
    return keras.Sequential(layers), keras.optimizers.SGD(LEARNING_RATE)


def batch(step: int) -> tuple[Any, Any]:
    """Inputs [ROWS, WIDTH] and targets [ROWS, 1] of a step, the same on every rank."""
    made = np.random.default_rng([SEED, step]).standard_normal((ROWS, WIDTH + 1)).astype(np.float32)
    return made[:, :WIDTH], made[:, WIDTH:]


def step_of(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Callable[[tf.Tensor, tf.Tensor], None]:
    """A step of training, on a worker's part of the rows or on all."""

    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x, training=True) - y)) / ROWS
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))  # sums over the workers

    return step


def error(found: Sequence[tf.Variable], wanted: Sequence[tf.Variable]) -> float:
    """The largest difference as a part of the largest value; not a number if any value is none."""
    a, b = (np.concatenate([variable.numpy().ravel() for variable in variables]) for variables in (found, wanted))
    return float(np.abs(a - b).max() / np.abs(b).max())
