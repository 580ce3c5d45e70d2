"""Write a finished Keras model for other programs, and see that it computes the same there.

python -m stackrt.export.pictures --model run                          a SavedModel as TensorFlow Serving wants it
stackctl run export-keras -- --model run --to savedmodel tflite        and a TFLite file
"""

import sys

from stackrt.export import picture_options
from stackrt.train import command_line

if __name__ == "__main__":
    command_line.check_early(picture_options.parse, sys.argv[1:])  # costs 0.1 s, not the import of TensorFlow

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from stackrt.export import compared
from stackrt.export.picture_options import Options
from stackrt.finished import folder, pictures, tflite
from stackrt.finished.replaced import replaced
from stackrt.pictures import data as sets
from stackrt.train import paths, report
from stackrt.train.errors import BadInputError, TrainerError, ended

BATCHES = (1, 8)
SAVED = "saved_model.pb"


def write_saved_model(model: Any, path: Path) -> tflite.Run:
    """A SavedModel; gives it as it is read back, by the signature that TensorFlow Serving calls."""
    with tflite.silenced():
        model.export(path, verbose=False)
        read = tf.saved_model.load(str(path))
    signature = read.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]

    def run(inputs: tflite.Array, _read: Any = read) -> tflite.Array:  # its variables live as long as it does
        (answer,) = signature(**{name: tf.constant(inputs)}).values()
        return np.asarray(answer)

    return run


def write_tflite(model: Any, path: Path) -> tflite.Run:
    """A TFLite file of 32-bit numbers; gives it as it is read back."""
    path.write_bytes(tflite.convert(model, "tflite", np.zeros(0)))
    return tflite.interpret(path.read_bytes(), threads=1)


def real_inputs(o: Options, about: dict[str, Any]) -> tflite.Array:
    """Pictures of the test part, as many as are to be compared.

    Raises:
        BadInputError: There are none, or they are of another size.
    """
    name = o.data or str(about.get("data", ""))
    if not name:
        raise BadInputError("--data: the model does not say what it was trained on; name the pictures to compare on")
    try:
        data = sets.load(name, o.cache)
    except BadInputError as error:
        raise BadInputError(f"{error} (there must be pictures to compare on)") from None
    if data.shape != tuple(about["shape"]):
        raise BadInputError(f"--data {name}: its pictures are {data.shape}, and the model's are {about['shape']}")
    return data.floats(np.resize(data.test.pictures, (o.verify, *data.shape)))


def run(o: Options) -> int:
    """Write each format, compare it with the original, and leave the result.

    Raises:
        TrainerError: A format computes something else.
    """
    began = time.perf_counter()
    report.prepare_folder(o.out)
    opened = pictures.open_model(o.model)
    inputs = real_inputs(o, opened.about) if o.verify else None
    places = {"savedmodel": o.out / o.name / str(o.version), "tflite": o.out / f"{o.name}.tflite"}
    rows: dict[str, dict[str, Any]] = {}
    folder.forget(o.out)
    for form in o.to:
        path = places[form]
        if paths.is_folder(path) and not paths.is_file(path / SAVED):
            raise BadInputError(f"--out: {path} is there already, and is no SavedModel; choose another --version")
        with report.writing(path), replaced(path) as aside:
            computes = (write_saved_model if form == "savedmodel" else write_tflite)(opened.model, aside)
        held = path.rglob("*") if paths.is_folder(path) else [path]
        row: dict[str, Any] = {"file": str(path), "bytes": sum(file.stat().st_size for file in held if file.is_file())}
        if inputs is not None:
            wanted = np.asarray(opened.model(inputs, training=False))
            row["difference"] = compared.largest(
                float(np.abs(computes(inputs[at : at + size]) - wanted[at : at + size]).max())
                for size in BATCHES
                for at in range(0, len(inputs) - size + 1, size)
            )
            row["inputs"], row["batches"] = len(inputs), list(BATCHES)
        rows[form] = row
        told = f", differs by {row['difference']:.1e} at most" if inputs is not None else ""
        print(f"{form:<12}{path}: {row['bytes'] / 1e6:,.2f} MB{told}", flush=True)
    seconds = round(time.perf_counter() - began, 3)
    report.write_result(o.out / "result.json", {
        "workload": "export", "model": str(o.model), "formats": rows, "tolerance": o.tolerance, "world_size": 1,
        "classes": opened.about.get("classes"), "shape": opened.about["shape"], "seconds": seconds,
        "options": {"to": list(o.to), "verify": o.verify, "data": o.data},
    })  # fmt: skip
    for row in rows.values():
        if not row.get("difference", 0.0) <= o.tolerance:
            raise TrainerError(
                f"{row['file']} computes something else: a score differs by {row['difference']:.1e}, and --tolerance "
                f"is {o.tolerance:g}; do not use it"
            )
    told = f"compared on {o.verify} pictures, in batches of 1 and 8" if o.verify else "not compared"
    print(f"done    in {seconds:.0f} s; {told}", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(picture_options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    sys.exit(main())
