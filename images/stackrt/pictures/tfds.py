"""Sets of tensorflow-datasets that are classified pictures of one size.

They are read in a process of their own: reading starts TensorFlow, and a trainer must say how before it starts.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stackrt.pictures.formats import Part
from stackrt.train import arrays
from stackrt.train.errors import BadInputError, TrainerError


def load(name: str, cache: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The parts of a set that was prepared in the cache's folder `tfds`, and its classes.

    Raises:
        BadInputError: It is unknown, not prepared, or not classified pictures of one size.
        TrainerError: Reading it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "set.npz")
        argv = [sys.executable, "-P", "-m", "stackrt.pictures.tfds", name, str(cache), str(file)]
        # It needs no GPU, and no place among the ranks.
        env = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"} | {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if not file.exists():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise TrainerError(f"--data tfds:{name}: could not be read: {last}")
        state = arrays.read(file)
    if "error" in state:
        raise BadInputError(state["error"])
    return {part: (state["pictures"][part], state["labels"][part]) for part in state["labels"]}, tuple(state["classes"])


def _read(name: str, cache: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The parts of a set that was prepared in the cache's folder `tfds`, and its classes.

    Raises:
        BadInputError: It is unknown, not prepared, or not classified pictures of one size.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise BadInputError(f"--data tfds:{name}: tensorflow-datasets is in the TensorFlow images only") from None
    folder = cache / "tfds"
    try:
        # Nothing is asked of the network: neither the set's description nor its files.
        builder: Any = tfds.builder(name, data_dir=str(folder), try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise BadInputError(f"--data tfds:{name}: {str(error).strip().splitlines()[0]}") from None
    except (ValueError, OSError) as error:
        raise BadInputError(f"--data tfds:{name}: {str(error).strip().splitlines()[0]}") from None
    info = builder.info
    features = dict(info.features or {})
    picture: Any = features.get("image")
    label: Any = features.get("label")
    if not hasattr(label, "names") or picture is None or len(picture.shape) != 3 or None in picture.shape:
        raise BadInputError(f"--data tfds:{name}: is not classified pictures of one size")
    if not builder.is_prepared():
        raise BadInputError(
            f"--data tfds:{name}: is not in {folder}; prepare it once, where there is a network: "
            f"tfds build {name} --data_dir {folder}"
        )
    parts = {}
    for part in ("train", "validation", "test"):
        if part in info.splits:
            rows = list(tfds.as_numpy(builder.as_dataset(split=part, shuffle_files=False)))
            pixels, labels = [row["image"] for row in rows], [row["label"] for row in rows]
            parts[part] = (np.stack(pixels), np.array(labels, np.int64))
    if "train" not in parts:
        raise BadInputError(f"--data tfds:{name}: has no part named train")
    return parts, tuple(label.names)


if __name__ == "__main__":
    try:
        found, classes = _read(sys.argv[1], Path(sys.argv[2]))
        said: dict[str, Any] = {
            "pictures": {part: pixels for part, (pixels, _) in found.items()},
            "labels": {part: labels for part, (_, labels) in found.items()},
            "classes": list(classes),
        }
    except BadInputError as error:
        said = {"error": str(error)}
    Path(sys.argv[3]).write_bytes(arrays.packed(said))
