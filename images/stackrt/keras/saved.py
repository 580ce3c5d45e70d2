"""A trained network on disk: written in each format that TensorFlow's world reads, and read back from any of them."""

import json
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from stackrt.finished import packed
from stackrt.pictures.data import Pictures
from stackrt.train import paths, report
from stackrt.train.errors import BadInputError, TrainerError

Array = npt.NDArray[Any]
NAMES = ("model.keras", "model.h5", "saved_model")
ABOUT = "model.json"
"""Beside the model: what its numbers mean."""
MOST_DIFFERENCE = 1e-6
"""Between outputs before and after; they come from the same weights, by another program's order of sums at most."""
_LOOKED_AT = 256  # pictures by which a file that was written is judged


class Model(NamedTuple):
    """A network that was read: it gives a score for each class."""

    scores: Callable[[Array], Array]
    shape: tuple[int, int, int]
    """Of one picture."""


def save(model: keras.Model, out: Path, data: Pictures, scores: Array) -> dict[str, float]:
    """Write a network in each format, read each back, and compare.

    Args:
        model: What was trained.
        out: The run's folder.
        data: What it was trained on.
        scores: What it gives for the test pictures.

    Returns:
        File -> the largest difference of an output.

    Raises:
        TrainerError: One does not come back as it was, or the disk is full.
    """
    pixels = data.floats(data.test.pictures[:_LOOKED_AT])
    fresh = out / ".saving"
    found = {}
    with report.writing(out), ExitStack() as last:
        shutil.rmtree(fresh, ignore_errors=True)
        last.callback(shutil.rmtree, fresh, ignore_errors=True)  # half a model on a full disk keeps it full
        fresh.mkdir()
        model.save(fresh / "model.keras")
        with _quietly():
            model.save(fresh / "model.h5")
        model.export(fresh / "saved_model", verbose=False)
        for name in NAMES:
            difference = float(np.abs(load(fresh / name).scores(pixels) - scores[:_LOOKED_AT]).max())
            if not difference <= MOST_DIFFERENCE * max(1.0, float(np.abs(scores).max())):
                raise TrainerError(f"{name} does not come back as it was written: outputs differ by {difference:.1e}")
            found[name] = difference
            if paths.is_folder(out / name):
                shutil.rmtree(out / name)
            (fresh / name).replace(out / name)
    about = {"data": data.name, "classes": list(data.classes), "shape": list(data.shape),
             "data_sha256": data.digest, "keras": keras.__version__}  # fmt: skip
    report.write_atomically(out / ABOUT, json.dumps(about, indent=2) + "\n")
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """Within the block Keras does not warn that .h5 is an old form: it is not the only one that is written."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def about(file: Path) -> dict[str, Any]:
    """What stands beside a model; nothing where it was moved away from it."""
    try:
        found = json.loads((file.parent / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def probabilities(scores: Array) -> Array:
    """Softmax."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def load(file: Path) -> Model:
    """Read a network of any of the formats.

    Raises:
        BadInputError: There is none, or it is another program's.
    """
    version = _made_by(file)
    try:
        if paths.is_folder(file):
            return _exported(file)
        model = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever its parts do
        ours = keras.__version__
        advice = (
            "load it with tf_keras there, and export it as a SavedModel (`model.export`)"
            if version.startswith("2.")
            else f"load it with Keras {version or '3'}, and save it anew"
        )
        by = f"it was saved by Keras {version}, and this is {ours}; " if version and version != ours else ""
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInputError(f"--load {file}: cannot be read ({why}); {by}{advice}") from None
    shape = tuple(model.input_shape[1:])
    _see_pictures(file, shape)
    return Model(lambda pixels: np.asarray(model.predict(pixels, verbose=0)), shape)


def _exported(folder: Path) -> Model:
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures.get("serve") or loaded.signatures["serving_default"]
    (name, spec), *_ = signature.structured_input_signature[1].items()
    _see_pictures(folder, tuple(spec.shape)[1:])

    def scores(pixels: Array) -> Array:
        (answer, *_) = signature(**{name: tf.constant(pixels)}).values()
        return np.asarray(answer)

    model = Model(scores, tuple(spec.shape)[1:])
    model.scores.__dict__["kept"] = loaded  # its variables live as long as it does
    return model


def _see_pictures(file: Path, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or None in shape:
        raise BadInputError(f"--load {file}: it takes inputs of shape {shape}, and not pictures of one size")


def _made_by(file: Path) -> str:
    """The version of Keras that wrote a file, if it tells.

    Raises:
        BadInputError: It is missing, unreadable, or not Keras's.
    """
    try:
        if paths.is_folder(file):
            if paths.is_file(file / "saved_model.pb"):
                return ""
            raise BadInputError(
                f"--load {file}: is a folder without saved_model.pb; name a model's file, or a SavedModel"
            )
        with file.open("rb") as opened:
            start = opened.read(16)
        if zipfile.is_zipfile(file):
            return _of_zip(file)
        if start.startswith(b"\x89HDF"):
            return _of_hdf5(file)
    except OSError as error:
        raise BadInputError(
            f"--load {file}: {error.strerror or error}; name model.keras, model.h5 or saved_model"
        ) from None
    others = {b"\x80": "a pickle, as PyTorch's older files are", b"TFL3": "TensorFlow Lite's", b"ONNX": "ONNX's"}
    kind = next((what for head, what in others.items() if start.startswith(head) or start[4:].startswith(head)), "")
    if start[8:9] == b"{":
        kind = "safetensors, which has weights and no network"
    raise BadInputError(f"--load {file}: is no model of Keras{f': it is {kind}' if kind else ''}")


def _of_zip(file: Path) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if "metadata.json" in names:
                return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (*packed.DAMAGED, KeyError, TypeError):
        raise BadInputError(f"--load {file}: it is damaged, or its metadata.json is; save it anew") from None
    pytorch = any(name.endswith("data.pkl") for name in names)
    kind = (
        "PyTorch's" if pytorch else "numpy's" if any(name.endswith(".npy") for name in names) else "another program's"
    )
    raise BadInputError(f"--load {file}: is no model of Keras: it is {kind}")


def _of_hdf5(file: Path) -> str:
    try:
        with h5py.File(file) as opened:
            version = str(opened.attrs.get("keras_version", "")) if "model_config" in opened.attrs else None
    except (KeyError, RuntimeError, TypeError, ValueError):  # whatever its C library does
        raise BadInputError(f"--load {file}: it is damaged; save it anew") from None
    if version is None:
        raise BadInputError(f"--load {file}: holds no network, but weights at most; save the whole model")
    return version
