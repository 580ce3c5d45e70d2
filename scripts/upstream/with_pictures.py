"""Runs one of Horovod's examples, as it is, where MNIST cannot be fetched: `load_data` gives a set that is at hand.

python with_pictures.py SET EXAMPLE ARGUMENT…
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import tensorflow as tf

from stackrt.pictures import data, known


def main() -> None:
    """Put the set in MNIST's place, and become the example, in the run's folder: examples write where they are."""
    name, example, *arguments = sys.argv[1:]
    here = Path(example).resolve()
    pictures = data.load(name, known.folder(os.environ))
    parts = [(part.pictures[..., 0], part.labels) for part in (pictures.train, pictures.test)]
    scale = 255 // pictures.brightest
    tf.keras.datasets.mnist.load_data = lambda **_: [(of * scale, labels) for of, labels in parts]
    os.chdir(os.environ["STACK_OUT"])
    sys.argv = [str(here), *arguments]
    runpy.run_path(str(here), run_name="__main__")


main()
