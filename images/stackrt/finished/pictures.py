"""A Keras model that training left. Keras 3 computes by TensorFlow where that is installed, else by PyTorch."""

import importlib.util
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from stackrt.finished import folder, packed
from stackrt.train import paths
from stackrt.train.errors import BadInputError

FILE, ABOUT = "model.keras", "model.json"


class PictureModel(NamedTuple):
    """A network of pictures.

    Attributes:
        model: A Keras model: pictures [batch, height, width, channels], from 0 to 1, to a score for each class.
        about: What the run noted of it, if it did: `classes` (their names), `shape` of a picture, `data`.
    """

    model: Any
    about: dict[str, Any]


def open_model(path: Path, told: str = "--model") -> PictureModel:
    """See `stackrt.finished.open_picture_model`; `told` is the option that named it."""
    found = folder.find(path, told)
    told = f"{told} {path}"
    if found.kind not in ("keras", "run") or (found.kind == "run" and found.workload not in folder.PICTURE_RUNS):
        what = f"a run of {found.workload}" if found.workload else "a language model's folder"
        raise BadInputError(f"{told}: is {what}; name the folder of a keras run, or a .keras file")
    file = path if found.kind == "keras" else path / FILE
    if not paths.is_file(file):
        raise BadInputError(f"{told}: has no {FILE}; train again, or name a .keras file")
    model = _load(file, told)
    shape = tuple(model.input_shape[1:]) if isinstance(model.input_shape, tuple) else ()
    if len(shape) != 3 or None in shape:
        raise BadInputError(f"{told}: takes inputs of shape {shape}, and not pictures of one size")
    return PictureModel(model, {"shape": list(shape), **_about(file)})


def _load(file: Path, told: str) -> Any:
    version = _made_by(file, told)
    if not importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError:
        raise BadInputError(
            f"{told}: is a Keras model, and keras is not installed here; use an image of TensorFlow"
        ) from None
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever its parts do
        why = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        by = f"; Keras {version} wrote it, and this is {keras.__version__}" if version != keras.__version__ else ""
        raise BadInputError(f"{told}: cannot be read: {why}{by}") from None


def _made_by(file: Path, told: str) -> str:
    """The version of Keras that wrote a file.

    Raises:
        BadInputError: It is damaged, or another program's.
    """
    try:
        packed.sizes(file)
        with zipfile.ZipFile(file) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except OSError as error:
        raise BadInputError(f"{told}: {file.name}: {error.strerror or error}") from None
    except (*packed.DAMAGED, KeyError, TypeError):
        raise BadInputError(f"{told}: {file.name} is damaged, or no file of Keras 3") from None


def _about(file: Path) -> dict[str, Any]:
    try:
        found = json.loads((file.parent / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
