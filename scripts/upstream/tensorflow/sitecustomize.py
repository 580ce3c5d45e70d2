"""In each rank of a tutorial: its MNIST comes from a data set that is here, as no rank can download it.

Python imports a module of this name by itself, if it is on PYTHONPATH.
"""

import os
from typing import Any

if "TF_CONFIG" in os.environ:
    import numpy as np
    import tensorflow as tf

    def load_data(path: str = "mnist.npz") -> Any:  # noqa: ARG001 - TensorFlow's signature
        """What `tf.keras.datasets.mnist.load_data` gives."""
        from stackrt.pictures import data, known

        found = data.load(os.environ["TUTORIAL_DATA"], known.folder(os.environ))
        pictures = np.concatenate([found.train.pictures, found.validation.pictures])[..., 0]
        labels = np.concatenate([found.train.labels, found.validation.labels])
        return (pictures, labels.astype(np.uint8)), (found.test.pictures[..., 0], found.test.labels.astype(np.uint8))

    tf.keras.datasets.mnist.load_data = load_data
