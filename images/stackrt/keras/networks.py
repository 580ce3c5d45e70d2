"""The networks, their optimizer and learning rate."""

from collections.abc import Sequence

import keras

from stackrt.keras.options import PRECISIONS, Options


def build(o: Options, shape: Sequence[int], classes: int, steps: int) -> keras.Model:
    """A compiled network; call it in the strategy's scope.

    Args:
        o: The options.
        shape: Of one picture: height, width, channels.
        classes: How many kinds of pictures there are.
        steps: Of the whole training, which the learning rate's schedule needs.
    """
    keras.mixed_precision.set_global_policy(PRECISIONS[o.precision])
    layers = keras.layers
    body = {
        "cnn": [
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(128, activation="relu", name="dense"),
        ],
        "mlp": [
            layers.Flatten(name="flatten"),
            layers.Dense(256, activation="relu", name="dense1"),
            layers.Dense(128, activation="relu", name="dense2"),
        ],
    }[o.model]
    dropout = [layers.Dropout(o.dropout, seed=o.seed, name="dropout")] if o.dropout else []
    # Scores, not probabilities, and in fp32 whatever the rest computes in: the loss is exact so.
    scores = layers.Dense(classes, dtype="float32", name="scores")
    model = keras.Sequential([keras.Input(tuple(shape), name="pictures"), *body, *dropout, scores], name=o.model)
    model.compile(
        keras.optimizers.SGD(learning_rate(o, steps), momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def learning_rate(o: Options, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The rate by step: warm-up, then half a cosine down to a hundredth, or as it is."""
    if o.schedule == "cosine":
        warmup = {"warmup_target": o.lr, "warmup_steps": o.warmup} if o.warmup else {}
        first = o.lr / o.warmup if o.warmup else o.lr
        return keras.optimizers.schedules.CosineDecay(first, max(1, steps - o.warmup), alpha=0.01, **warmup)
    if o.warmup:
        return keras.optimizers.schedules.PolynomialDecay(o.lr / o.warmup, o.warmup, o.lr)
    return o.lr


def rate_at(o: Options, steps: int, step: int) -> float:
    """The learning rate of a step, from 0."""
    rate = learning_rate(o, steps)
    return float(rate(step) if callable(rate) else rate)
