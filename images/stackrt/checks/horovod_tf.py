"""What the checks of Horovod run in each rank of a TensorFlow image."""

import hashlib

import horovod.tensorflow as hvd
import tensorflow as tf

from stackrt.checks.tf_ranks import LEARNING_RATE, SEED, WIDTH, batch, error, network, take_device


def collectives() -> dict[str, list[float]]:
    """What this rank receives when each gives 1, 2, 3 times its rank + 1; see `horovod.judge_collectives`."""
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    mine = tf.constant([1.0, 2.0, 3.0]) * (rank + 1)
    received, _ = hvd.alltoall(tf.fill([size], rank + 1.0), splits=tf.ones(size, tf.int32))
    found = {
        "sum": hvd.allreduce(mine, op=hvd.Sum, name="sum"),
        "mean": hvd.allreduce(mine, op=hvd.Average, name="mean"),
        "allgather": hvd.allgather(mine[:1], name="allgather"),
        "broadcast": hvd.broadcast(mine, root_rank=size - 1, name="broadcast"),
        "alltoall": received,
    }
    hvd.shutdown()
    return {name: tensor.numpy().tolist() for name, tensor in found.items()}


def optimizer() -> dict[str, float]:
    """A step with DistributedGradientTape on the ranks' parts, against a plain one on the whole."""
    hvd.init()
    rank, size = hvd.rank(), hvd.size()
    take_device(hvd.local_rank())
    whole, plain = network(SEED)
    # Every rank begins with other weights, so that broadcasting them is tested as well.
    model, shared = network(SEED + rank)
    hvd.broadcast_variables(model.variables, root_rank=0)
    x, y = batch(0)
    for net, steps, part in ((whole, plain, slice(None)), (model, shared, slice(rank, None, size))):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(net(x[part], training=True) - y[part]))
        tape = hvd.DistributedGradientTape(tape) if net is model else tape
        gradients = tape.gradient(loss, net.trainable_variables)
        steps.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
    found = error(model.trainable_variables, whole.trainable_variables)
    hvd.shutdown()
    return {"horovod_error": found}


def keras_fit() -> dict[str, str]:
    """Fit with Horovod's optimizer for Keras, and with each of its callbacks.

    Returns:
        Callback -> what `fit` with it ends with, empty if it works; `sha256` of the weights after the first.
    """
    import horovod.tensorflow.keras as hvd_keras

    hvd_keras.init()
    rank, found = hvd_keras.rank(), {}
    callbacks = hvd_keras.callbacks
    for callback in (callbacks.BroadcastGlobalVariablesCallback(0), callbacks.MetricAverageCallback()):
        # Every rank begins with other weights and has rows of its own.
        tf.keras.utils.set_random_seed(SEED + rank)
        model = tf.keras.Sequential([tf.keras.Input((WIDTH,)), tf.keras.layers.Dense(1)])
        problem = ""
        try:
            model.compile(hvd_keras.DistributedOptimizer(tf.keras.optimizers.SGD(LEARNING_RATE)), "mse")
            model.fit(*batch(rank), verbose=0, callbacks=[callback])
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        found[type(callback).__name__] = problem
        weights = b"".join(values.tobytes() for values in model.get_weights())
        found.setdefault("sha256", hashlib.sha256(weights).hexdigest())
    hvd_keras.shutdown()
    return found
