"""Train a small network on handwritten digits with Horovod and TensorFlow.

    python -m stackrt.train.horovod_tf                                     one process
    stackctl run horovod-tf --nodes 2 --procs 2 --on compose               two nodes of two ranks

Each rank computes its part of a step's pictures; Horovod averages the gradients, so any number of ranks trains alike.
"""

import sys

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError

from stackrt.train import digits, report
from stackrt.train.cnn import make_deterministic, network
from stackrt.train.digits import Options
from stackrt.train.errors import PeersGoneError, TrainerError


def run(o: Options) -> None:
    """Train, and leave weights and result.

    Raises:
        TrainerError: The ranks end with different weights.
    """
    hvd.init()
    rank, world_size = hvd.rank(), hvd.size()
    make_deterministic(o.seed)
    pictures, labels, test_pictures, test_labels = digits.load()
    model, optimizer = network(o.lr)
    hvd.broadcast_variables(model.variables, root_rank=0)
    log = digits.Report(o, "horovod-tf", rank, world_size)

    @tf.function
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True))
            loss = tf.reduce_mean(losses)
        tape = hvd.DistributedGradientTape(tape)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for step in range(o.steps):
        chosen = digits.batch(o, step, rank, world_size, len(labels))
        loss = train(tf.constant(pictures[chosen]), tf.constant(labels[chosen]))
        if log.due(step + 1):
            log.add(step + 1, float(hvd.allreduce(loss, name="loss")))

    weights = {variable.name: variable.numpy() for variable in model.trainable_variables}
    if len(set(hvd.allgather_object(report.arrays_sha256(weights)))) > 1:
        raise TrainerError("the ranks end with different weights; the machine or its network computes wrongly")
    guesses = np.argmax(model(test_pictures).numpy(), axis=1)
    log.finish(weights, float(np.mean(guesses == test_labels)))
    hvd.shutdown()


def guarded(o: Options) -> None:
    """Run; a rank that is left alone says so.

    Raises:
        PeersGoneError: Another rank ended during a collective.
    """
    try:
        run(o)
    except (HorovodInternalError, tf.errors.UnknownError) as error:
        raise PeersGoneError(f"another rank is gone: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    sys.exit(digits.main(guarded, sys.argv[1:], "Train a small network on digits with Horovod and TensorFlow."))
