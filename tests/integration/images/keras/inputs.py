"""Runs in the image: predictions that work and that cannot. Prints by case the exit code, and what was said.

/out holds a training; what is made here is below /tmp.
"""

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras
from PIL import Image

from stackrt.keras.__main__ import main

MADE = Path("/tmp/made")
MADE.mkdir()


def case(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--out", "/out", *words])
    return code, out.getvalue(), err.getvalue()


def made(name: str) -> str:
    return str(MADE / name)


def old(name: str) -> str:
    """A model of Keras 2."""
    model = tf_keras.Sequential([tf_keras.layers.Flatten(input_shape=(8, 8, 1)), tf_keras.layers.Dense(10)])
    model.save(made(name))
    return made(name)


def text(name: str, content: bytes) -> str:
    (MADE / name).write_bytes(content)
    return made(name)


with zipfile.ZipFile(made("model.pt"), "w") as archive:
    archive.writestr("archive/data.pkl", b"")
grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
Image.fromarray(grey).save(made("right.png"))
Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(made("large.png"))
whole = Path(made("right.png")).read_bytes()

found: dict[str, Any] = {
    # First: TensorFlow's devices are chosen before it does anything, and once a process.
    "an uneven batch": case("--devices", "3", "--out", made("uneven")),
    "a TPU that is not there": case("--strategy", "tpu", "--out", made("tpu")),
    "one": case("--predict", "3", "--json"),
    "batch": case("--predict", "0", "1", "2", "3", made("right.png"), "--json"),
    "drawn": case("--predict", "3", made("right.png"), "--picture", made("new.png")),
    "an index out of range": case("--predict", "261"),
    "a negative index": case("--predict=-1"),
    "another size": case("--predict", made("large.png")),
    "no picture": case("--predict", text("words.png", b"not a picture")),
    "half a picture": case("--predict", text("half.png", whole[: len(whole) // 2])),
    "a file that is not there": case("--predict", made("absent.png")),
    "a picture that is there": case("--predict", "3", "--picture", made("right.png")),
    "no model": case("--predict", "3", "--load", made("absent.keras")),
    "a model of PyTorch": case("--predict", "3", "--load", made("model.pt")),
    "a model of TensorFlow Lite": case("--predict", "3", "--load", text("model.tflite", b"\x1c\0\0\0TFL3")),
    "weights alone": case("--predict", "3", "--load", text("model.safetensors", b"\2\0\0\0\0\0\0\0{}")),
    "another Keras's .keras": case("--predict", "3", "--load", old("old.keras")),
    "another Keras's .h5": case("--predict", "3", "--load", old("old.h5")),
    "half a model": case("--predict", "3", "--load", text("half.keras", Path("/out/model.keras").read_bytes()[:9999])),
    "no SavedModel": case("--predict", "3", "--load", str(MADE)),
    "another set": case("--predict", "3", "--data", "digit"),
}
found["the picture"] = [Path(made("right.png")).read_bytes() == whole, list(Image.open(made("new.png")).size)]
print(json.dumps(found))
