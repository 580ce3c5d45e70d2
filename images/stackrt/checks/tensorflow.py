"""Does TensorFlow train on several ranks, save rightly, and use cuDNN?"""

from collections.abc import Mapping, Sequence
from typing import Any

from stackrt.checks import ranks
from stackrt.checks.context import Context
from stackrt.checks.pytorch import ranks_failed
from stackrt.checks.pytorch_gpu import FALL, judge_losses
from stackrt.checks.registry import check
from stackrt.checks.result import Result, failed, passed

MOST_ERROR = 1e-5
"""Of weights after a few steps, relative to the largest: sums in another order differ by about 10^-7 a step."""


@check(
    "tf-multiworker",
    frameworks=("tensorflow",),
    timeout=240.0,
    proves="two workers of MultiWorkerMirroredStrategy train as one process would",
    criterion=f"equal weights on both, and those of one process to {MOST_ERROR:g}",
)
def tf_multiworker(context: Context) -> Result:
    """Train the reference network for a few steps on two workers."""
    try:
        return judge_workers(
            ranks.run(context, "stackrt.checks.tf_ranks:train", 2, framework="tensorflow", timeout=230)
        )
    except ranks.RanksError as error:
        return ranks_failed(error)


def judge_workers(answers: Sequence[Mapping[str, Any]]) -> Result:
    """Judge each worker's `sha256` of its weights, and their `error` against one process."""
    digests = {str(answer["sha256"]) for answer in answers}
    errors = [float(answer["error"]) for answer in answers]
    wrong = [f"worker {rank} differs from one process by {value:.1e}" for rank, value in enumerate(errors)
             if not value <= MOST_ERROR]  # fmt: skip
    if len(digests) > 1:
        wrong.append("the workers' weights differ from each other")
    if wrong:
        return failed(
            "; ".join(wrong), expected="equal weights, those of one process", error=max(errors),
            todo="memory or the network computes wrongly: repeat it, then leave out one node after the other",
        )  # fmt: skip
    return passed(f"{len(answers)} workers end with equal weights, and equal one process to {max(errors):.0e}")


@check(
    "tf-checkpoint",
    frameworks=("tensorflow",),
    timeout=180.0,
    proves="what TensorFlow and Keras save comes back as it was",
    criterion="a checkpoint's weights and moments, and a .keras file's outputs, are equal to the last bit",
)
def tf_checkpoint(context: Context) -> Result:
    """Save after a step, and load into another model."""
    import numpy as np
    import tensorflow as tf

    inputs = tf.reshape(tf.linspace(-1.0, 1.0, 8 * 16), (8, 16))

    def start() -> tuple[Any, Any]:
        model = tf.keras.Sequential([tf.keras.Input((16,)), tf.keras.layers.Dense(8, "gelu"), tf.keras.layers.Dense(1)])
        optimizer = tf.keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
        return model, optimizer

    def bits(model: Any, optimizer: Any) -> list[bytes]:
        return [np.asarray(variable).tobytes() for variable in [*model.variables, *optimizer.variables]]

    (model, optimizer), other = start(), start()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(inputs) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    path = tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(context.scratch / "checkpoint"))
    tf.train.Checkpoint(model=other[0], optimizer=other[1]).read(path).assert_consumed()
    file = context.scratch / "model.keras"
    model.save(file)
    again = tf.keras.models.load_model(file)
    problems = {
        "a checkpoint comes back changed": bits(model, optimizer) != bits(*other),
        "a .keras file comes back changed": not np.array_equal(model(inputs), again(inputs)),
    }
    wrong = [problem for problem, is_so in problems.items() if is_so]
    if wrong:
        return failed(
            "; ".join(wrong), expected="equal to the last bit",
            todo="look at the disk and memory of this machine; repeat on another",
        )  # fmt: skip
    return passed("weights, moments and a .keras file come back as they were")


@check(
    "keras-conv",
    needs=("gpu",),
    tags=("cuda",),
    frameworks=("tensorflow",),
    timeout=180.0,
    proves="Keras trains a convolutional network with cuDNN",
    criterion=f"every loss of fit is finite, and the last is below {FALL:g} of the first",
)
def keras_conv(_context: Context) -> Result:
    """Fit a small network to one batch."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        return failed(
            "TensorFlow sees no GPU", expected="the GPUs that the driver shows",
            todo="see what it says of CUDA in the lines above; run driver-floor and cuda-libraries",
        )  # fmt: skip
    return judge_losses(keras_losses())


def keras_losses(epochs: int = 20) -> list[float]:
    """The losses of a network with a convolution that learns one batch by heart."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential([
        tf.keras.Input((16, 16, 3)), layers.Conv2D(16, 3, padding="same"), layers.BatchNormalization(),
        layers.ReLU(), layers.MaxPool2D(), layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Flatten(), layers.Dense(10),
    ])  # fmt: skip
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.05, momentum=0.9), loss)
    pictures, labels = tf.random.normal((64, 16, 16, 3)), tf.random.uniform((64,), maxval=10, dtype=tf.int32)
    history = model.fit(pictures, labels, batch_size=64, epochs=epochs, verbose=0)
    return [float(loss) for loss in history.history["loss"]]
