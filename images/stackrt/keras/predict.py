"""Predict what is on pictures: files, or numbers of a data set's test pictures."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from stackrt.keras import figures, saved
from stackrt.keras.options import Options
from stackrt.pictures import data as sets
from stackrt.pictures import formats
from stackrt.pictures.data import Pictures
from stackrt.pictures.known import SHIPPED
from stackrt.train import paths
from stackrt.train.errors import BadInputError


class Chosen(NamedTuple):
    """One picture to look at."""

    name: str
    pixels: npt.NDArray[np.float32]
    """Height, width and channels, from 0 to 1."""
    label: str | None
    """What is on it, where that is known."""


def run(o: Options) -> int:
    """Print what a model sees in each picture.

    Raises:
        BadInputError: A model or a picture cannot be used.
    """
    file = o.load or o.out / saved.NAMES[0]
    if o.picture and paths.is_there(o.picture):
        raise BadInputError(f"--picture {o.picture}: is there already; name a new file")
    model, about = saved.load(file), saved.about(file)
    numbered = [word for word in o.predict if _is_number(word)]
    data = sets.load(o.data or str(about.get("data", SHIPPED)), o.cache) if numbered else None
    if data and data.shape != model.shape:
        raise BadInputError(
            f"--data {data.name}: its pictures are {_size(data.shape)}, {file} takes {_size(model.shape)}"
        )
    chosen = [_of_set(word, data) if data and _is_number(word) else _of_file(word, model.shape) for word in o.predict]
    found = saved.probabilities(model.scores(np.stack([picture.pixels for picture in chosen])))
    classes = list(data.classes if data else about.get("classes", ()))
    if len(classes) != found.shape[1]:
        classes = [str(label) for label in range(found.shape[1])]
    rows = [_row(picture, values, classes) for picture, values in zip(chosen, found, strict=True)]
    if o.json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(len(picture.name) for picture in chosen)
        for row in rows:
            true = "" if row["label"] is None else f"  is {row['label']}" + ("" if row["right"] else "  WRONG")
            print(f"{row['picture']:<{width}}  {row['predicted']} ({row['probability']:.3f}){true}")
    if o.picture:
        figures.grid(o.picture, [(p.pixels, r["predicted"], r["label"]) for p, r in zip(chosen, rows, strict=True)])
    return 0


def _row(picture: Chosen, values: npt.NDArray[Any], classes: list[str]) -> dict[str, Any]:
    best = int(values.argmax())
    row = {"picture": picture.name, "predicted": classes[best], "probability": float(values[best])}
    right = None if picture.label is None else picture.label == classes[best]
    return row | {"label": picture.label, "right": right, "probabilities": [float(value) for value in values]}


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdecimal() and not paths.is_there(word)


def _of_set(word: str, data: Pictures) -> Chosen:
    index = int(word)
    if not 0 <= index < len(data.test):
        raise BadInputError(f"--predict {word}: the test pictures of {data.name} are 0 to {len(data.test) - 1}")
    return Chosen(word, data.floats(data.test.pictures[index]), data.classes[int(data.test.labels[index])])


def _of_file(word: str, shape: tuple[int, int, int]) -> Chosen:
    height, width, channels = shape
    try:
        with Image.open(Path(word)) as image:
            size = image.size
            if size == (width, height):
                pixels = formats.in_channels(image, channels).astype(np.float32) / np.float32(255)
    except OSError as error:
        why = error.strerror or "it is no picture that Pillow can read, or it is damaged"
        raise BadInputError(f"--predict {word}: {why}; name a PNG or JPEG file, or a test picture's number") from None
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(f"--predict {word}: it is damaged, or no picture: {error}") from None
    if size != (width, height):
        raise BadInputError(
            f"--predict {word}: it is {size[1]} x {size[0]} pixels, and the model takes {height} x {width}; "
            f"resize it, as by `convert {word} -resize {width}x{height}! small.png`"
        )
    return Chosen(word, pixels.reshape(shape), None)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
