"""Train a small network on pictures with TensorFlow's MultiWorkerMirroredStrategy: handwritten digits by default.

    python -m stackrt.train.cnn                                     one process
    stackctl run cnn --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; the gradients of all are summed, so any number of ranks trains alike.
"""

import os
import sys

from stackrt.pictures import trainer

if __name__ == "__main__":
    # A wrong option, or a set that is not there, does not cost the import of TensorFlow.
    trainer.early(sys.argv[1:], "Train a small network on pictures with MultiWorkerMirroredStrategy.")

from contextlib import suppress

import numpy as np
import tensorflow as tf
import tf_keras as keras  # Keras 3 leaves tf.distribute to this, its predecessor

from stackrt.pictures.data import Floats
from stackrt.pictures.formats import Whole
from stackrt.pictures.options import Options
from stackrt.pictures.trainer import State
from stackrt.train.command_line import same_ranks
from stackrt.train.tf_config import place, workers


def network(lr: float, shape: tuple[int, int, int], classes: int) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """Two convolutions and a dense layer, with weights from the seed set before; more of it for larger pictures."""
    layers = keras.layers
    large = min(shape[:2]) >= 16
    model = keras.Sequential([
        layers.Conv2D(16, 3, padding="same", activation="relu", input_shape=shape, name="conv1"),
        layers.MaxPool2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
        *([layers.MaxPool2D()] if large else []),
        layers.Flatten(),
        *([layers.Dense(128, activation="relu", name="dense1")] if large else []),
        layers.Dense(classes, name="dense"),
    ])  # fmt: skip
    optimizer = keras.optimizers.SGD(lr, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def make_deterministic(seed: int) -> None:
    """The same seed gives the same weights, bit for bit, for a number of ranks."""
    # Once it has computed anything, TensorFlow takes no other number, nor the same again.
    if tf.config.threading.get_intra_op_parallelism_threads() != trainer.THREADS:
        tf.config.threading.set_intra_op_parallelism_threads(trainer.THREADS)
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(seed)


def take_device(local_rank: int) -> str:
    """Leave each rank its own GPU, or none with STACK_DEVICE=cpu; a strategy would take all that it sees."""
    gpus = [] if os.environ.get("STACK_DEVICE") == "cpu" else tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[local_rank : local_rank + 1], "GPU")
    return "cuda" if gpus else "cpu"


def state_of(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> State:
    """Parameters by name, and what the optimizer keeps by its place: its names need not differ."""
    return State(
        {variable.name: variable.numpy() for variable in model.trainable_variables},
        {f"{number:03}": variable.numpy() for number, variable in enumerate(optimizer.variables)},
    )


def restore(state: State, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Put such a state back."""
    for variable in model.trainable_variables:
        variable.assign(state.weights[variable.name])
    for number, variable in enumerate(optimizer.variables):
        variable.assign(state.optimizer[f"{number:03}"])


def guesses(model: keras.Model, pictures: Floats) -> Whole:
    """The likeliest label of each picture."""
    found: Whole = np.argmax(model(pictures).numpy(), axis=1)
    return found


class Mirrored:
    """This rank's replica under the strategy, for the trainer."""

    def __init__(self, o: Options, shape: tuple[int, int, int], classes: int) -> None:
        same_ranks(len(workers(os.environ)) or 1, "TensorFlow")
        self.rank, local_rank = place(os.environ)
        self.device = take_device(local_rank)
        make_deterministic(o.seed)
        # Before any other operation: this starts the server that the other ranks look for (TF_CONFIG).
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self.world_size: int = strategy.num_replicas_in_sync
        with strategy.scope():
            model, optimizer = network(o.lr, shape, classes)
        self._model, self._optimizer, self._lr = model, optimizer, o.lr
        self._last = tf.zeros(())

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
        def total(numbers: tf.Tensor) -> tf.Tensor:
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(numbers,)), axis=None)

        self._train, self._total = train, total

    def total(self, numbers: Whole) -> Whole:
        """The sum of each number over the ranks."""
        if self.world_size == 1:
            return numbers
        found: Whole = self._total(tf.constant(numbers, tf.int64)).numpy()
        return found

    def step(self, pictures: Floats, labels: Whole, lr: float) -> None:
        """Train on this rank's part of a step."""
        if lr != self._lr:
            self._optimizer.learning_rate.assign(lr)
            self._lr = lr
        self._last = self._train(tf.constant(pictures), tf.constant(labels))

    def loss(self) -> float:
        """The mean loss of the last step over all ranks."""
        return float(self._last)

    def guesses(self, pictures: Floats) -> Whole:
        """The likeliest label of each picture."""
        return guesses(self._model, pictures)

    def state(self) -> State:
        """What a checkpoint holds."""
        return state_of(self._model, self._optimizer)

    def restore(self, state: State) -> None:
        """Take over a checkpoint's."""
        restore(state, self._model, self._optimizer)

    def leave(self) -> None:
        """Wait until no rank needs this one: a rank fetches what others have summed from them, while they are there.

        Once all have come here their work is done: that the first to leave cuts this last sum off is no failure.
        """
        with suppress(tf.errors.OpError):
            self.total(np.zeros(1, np.int64))


def run(o: Options) -> int:
    """Train; return the exit code."""
    data = trainer.load(o)
    machine = Mirrored(o, data.shape, len(data.classes))
    code = trainer.train(o, "cnn", machine, data)
    machine.leave()
    return code


if __name__ == "__main__":
    sys.exit(trainer.main(run, sys.argv[1:]))
