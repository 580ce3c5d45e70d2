"""Runs in a TensorFlow image: prepares a small set of tensorflow-datasets below /out/tfds, without a network."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def pictures(count: int) -> tf.data.Dataset:
    """Dark pictures and light ones."""
    labels = np.arange(count) % 2
    pixels = np.stack(
        [np.full((8, 8, 3), 40 + 160 * label + number % 40, np.uint8) for number, label in enumerate(labels)]
    )
    return tf.data.Dataset.from_tensor_slices({"image": pixels, "label": labels})


tfds.dataset_builders.store_as_tfds_dataset(
    name="tiny",
    version="1.0.0",
    data_dir="/out/tfds",
    features=tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(8, 8, 3)),
        "label": tfds.features.ClassLabel(names=["dark", "light"]),
    }),
    split_datasets={"train": pictures(60), "test": pictures(10)},
)  # fmt: skip
