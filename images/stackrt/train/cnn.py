"""Train a small network on handwritten digits with TensorFlow's MultiWorkerMirroredStrategy.

    python -m stackrt.train.cnn                                     one process
    stackctl run cnn --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; the gradients of all are summed, so any number of ranks trains alike.
"""

import os
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras  # Keras 3 leaves tf.distribute to this, its predecessor

from stackrt.train import digits, report
from stackrt.train.digits import Options
from stackrt.train.errors import TrainerError
from stackrt.train.tf_config import place


def network(lr: float) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Two convolutions and a dense layer, with weights from the seed set before."""
    model = keras.Sequential([
        keras.layers.Conv2D(16, 3, padding="same", activation="relu", input_shape=(8, 8, 1), name="conv1"),
        keras.layers.MaxPool2D(),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
        keras.layers.Flatten(),
        keras.layers.Dense(10, name="dense"),
    ])  # fmt: skip
    return model, keras.optimizers.SGD(lr, momentum=0.9)


def make_deterministic(seed: int) -> None:
    """The same seed gives the same weights, bit for bit, for a number of ranks."""
    tf.config.threading.set_intra_op_parallelism_threads(digits.THREADS)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def take_device(local_rank: int) -> str:
    """Leave each rank its own GPU, or none with STACK_DEVICE=cpu; a strategy would take all that it sees."""
    gpus = [] if os.environ.get("STACK_DEVICE") == "cpu" else tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[local_rank : local_rank + 1], "GPU")
    return "cuda" if gpus else "cpu"


def run(o: Options) -> None:
    """Train, and leave weights and result.

    Raises:
        TrainerError: The ranks end with different weights.
    """
    rank, local_rank = place(os.environ)
    device = take_device(local_rank)
    make_deterministic(o.seed)
    # Before any other operation: this starts the server that the other ranks look for (TF_CONFIG).
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    world_size = strategy.num_replicas_in_sync
    pictures, labels, test_pictures, test_labels = digits.load()
    with strategy.scope():
        model, optimizer = network(o.lr)
    log = digits.Report(o, "cnn", rank, world_size, device)

    def part(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            loss = tf.reduce_sum(losses) / o.batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))  # sums over the ranks
        return loss

    @tf.function
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(part, args=(x, y)), axis=None)

    @tf.function
    def total(number: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(number,)), axis=None)

    for step in range(o.steps):
        chosen = digits.batch(o, step, rank, world_size, len(labels))
        loss = train(tf.constant(pictures[chosen]), tf.constant(labels[chosen]))
        if log.due(step + 1):
            log.add(step + 1, float(loss))

    weights = {variable.name: variable.numpy() for variable in model.trainable_variables}
    # Every rank's digest as a number: if all are equal, their sum is the ranks times any of them.
    number = int(report.arrays_sha256(weights)[:12], 16)
    if int(total(tf.constant(number, tf.int64))) != number * world_size:
        raise TrainerError("the ranks end with different weights; the machine or its network computes wrongly")
    guesses = np.argmax(model(test_pictures).numpy(), axis=1)
    log.finish(weights, float(np.mean(guesses == test_labels)))


if __name__ == "__main__":
    sys.exit(digits.main(run, sys.argv[1:], "Train a small network on digits with MultiWorkerMirroredStrategy."))
