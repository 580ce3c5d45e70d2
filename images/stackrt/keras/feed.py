"""The pictures of a training as TensorFlow reads them: held in memory as bytes, made numbers batch by batch."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from stackrt.pictures.data import Pictures, Split


def training(data: Pictures, indices: npt.NDArray[np.int32]) -> tf.data.Dataset:
    """The batches of `indices`."""
    pictures, labels = tf.constant(data.train.pictures), tf.constant(data.train.labels.astype(np.int32))

    def batch(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _floats(tf.gather(pictures, chosen), data), tf.gather(labels, chosen)

    return _whole(tf.data.Dataset.from_tensor_slices(indices).map(batch))


def measuring(data: Pictures, part: Split, batch_size: int) -> tf.data.Dataset:
    """All pictures of a part once, in order."""
    batches = tf.data.Dataset.from_tensor_slices((part.pictures, part.labels.astype(np.int32))).batch(batch_size)
    return _whole(batches.map(lambda x, y: (_floats(x, data), y)))


def _floats(pixels: tf.Tensor, data: Pictures) -> tf.Tensor:
    """As `data.floats`: from 0 to 1. Here, so that what is held in memory and moved is a byte a number."""
    return tf.cast(pixels, tf.float32) / data.brightest


def _whole(data: tf.data.Dataset) -> tf.data.Dataset:
    # One process feeds all devices: there is nothing to shard, and trying prints a warning.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    options.deterministic = True
    return data.with_options(options).prefetch(tf.data.AUTOTUNE)
