"""What the checks of Horovod run in each rank of a TensorFlow image."""

import hashlib

import horovod.tensorflow as hvd
import tensorflow as tf

from stackrt.checks.tf_ranks import LEARNING_RATE, ROWS, SEED, WIDTH, batch, error, network, take_device


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


def keras_fit() -> dict[str, dict[str, str | list[float]]]:
    """Fit for two epochs with Horovod's optimizer for Keras, and each of its callbacks in turn.

    Returns:
        Callback -> `problem` that `fit` ended with, or empty; `sha256` of the weights; `loss` and `rates` (the learning
        rate as a part of the full one) after each epoch.
    """
    import horovod.tensorflow.keras as hvd_keras

    hvd_keras.init()
    take_device(hvd_keras.local_rank())
    rank = hvd_keras.rank()
    found: dict[str, dict[str, str | list[float]]] = {}
    kinds = hvd_keras.callbacks
    broadcast = kinds.BroadcastGlobalVariablesCallback
    for callback in (
        None,
        kinds.MetricAverageCallback(),
        kinds.LearningRateWarmupCallback(LEARNING_RATE, warmup_epochs=2),
        kinds.LearningRateScheduleCallback(LEARNING_RATE, 0.5),
    ):
        # Every rank begins with other weights and has rows of its own.
        tf.keras.utils.set_random_seed(SEED + rank)
        model = tf.keras.Sequential([tf.keras.Input((WIDTH,)), tf.keras.layers.Dense(1)])
        rates = Rates()
        problem, losses = "", []
        callbacks = [broadcast(0), *([callback] if callback else []), rates]
        try:
            steps = tf.keras.optimizers.SGD(LEARNING_RATE, momentum=0.5)
            model.compile(hvd_keras.DistributedOptimizer(steps), "mse", jit_compile=False)
            fitted = model.fit(*batch(rank), batch_size=ROWS, epochs=2, verbose=0, callbacks=callbacks)
            losses = [float(loss) for loss in fitted.history["loss"]]
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        weights = b"".join(values.tobytes() for values in model.get_weights())
        digest = hashlib.sha256(weights).hexdigest()
        name = type(callback).__name__ if callback else broadcast.__name__
        found[name] = {"problem": problem, "sha256": digest, "loss": losses, "rates": rates.seen}
    hvd_keras.shutdown()
    return found


class Rates(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Notes the learning rate after each epoch, as a part of the full one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Note it."""
        self.seen.append(round(float(self.model.optimizer.learning_rate.numpy()) / LEARNING_RATE, 6))
