"""Train a small network on pictures with Horovod and TensorFlow: handwritten digits by default.

    python -m stackrt.train.horovod_tf                                     one process
    stackctl run horovod-tf --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; Horovod averages the gradients, so any number of ranks trains alike.
"""

import sys
from functools import partial

import horovod.tensorflow as hvd
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError

from stackrt.pictures import trainer
from stackrt.pictures.data import Floats
from stackrt.pictures.formats import Whole
from stackrt.pictures.trainer import State
from stackrt.train import cnn, horovod_run
from stackrt.train.horovod_run import HorovodOptions


class Averaging:
    """This rank's network under Horovod, for the trainer."""

    device = "cpu"

    def __init__(self, o: HorovodOptions, shape: tuple[int, int, int], classes: int) -> None:
        self.rank: int = hvd.rank()
        self.world_size: int = hvd.size()
        cnn.make_deterministic(o.seed)
        model, optimizer = cnn.network(o.lr, shape, classes)
        hvd.broadcast_variables(model.variables, root_rank=0)
        self._model, self._optimizer, self._lr = model, optimizer, o.lr
        self._last = tf.zeros(())

        variables, compression = model.trainable_variables, getattr(hvd.Compression, o.compression)

        @tf.function
        def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            loss, gradients = tf.zeros(()), [tf.zeros_like(variable) for variable in variables]
            for part_x, part_y in zip(tf.split(x, o.accumulate), tf.split(y, o.accumulate), strict=True):
                with tf.GradientTape() as tape:
                    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(part_y, model(part_x, training=True))
                    mean = tf.reduce_mean(losses) / o.accumulate
                loss += mean
                gradients = [sum(pair) for pair in zip(gradients, tape.gradient(mean, variables), strict=True)]
            # As DistributedGradientTape does for one pass.
            averaged = [
                hvd.allreduce(gradient, compression=compression, name=f"gradient.{number}")
                for number, gradient in enumerate(gradients)
            ]
            optimizer.apply_gradients(zip(averaged, variables, strict=True))
            return loss

        self._train = train

    def total(self, numbers: Whole) -> Whole:
        """The sum of each number over the ranks."""
        found: Whole = hvd.allreduce(tf.constant(numbers, tf.int64), op=hvd.Sum, name="total").numpy()
        return found

    def step(self, pictures: Floats, labels: Whole, lr: float) -> None:
        """Train on this rank's part of a step."""
        if lr != self._lr:
            self._optimizer.learning_rate.assign(lr)
            self._lr = lr
        self._last = self._train(tf.constant(pictures), tf.constant(labels))

    def loss(self) -> float:
        """The mean loss of the last step over all ranks."""
        return float(hvd.allreduce(self._last, name="loss"))

    def guesses(self, pictures: Floats) -> Whole:
        """The likeliest label of each picture."""
        return cnn.guesses(self._model, pictures)

    def state(self) -> State:
        """What a checkpoint holds."""
        return cnn.state_of(self._model, self._optimizer)

    def restore(self, state: State) -> None:
        """Take over a checkpoint's."""
        cnn.restore(state, self._model, self._optimizer)


if __name__ == "__main__":
    cnn.make_deterministic(0)  # for its threads: under the elastic runner the ranks exchange something first
    lost = (HorovodInternalError, tf.errors.UnknownError)
    run = partial(horovod_run.run, hvd, "horovod-tf", Averaging, lost)
    what = "Train a small network on pictures with Horovod and TensorFlow."
    sys.exit(trainer.main(run, sys.argv[1:], what, HorovodOptions, horovod_run.add_options))
