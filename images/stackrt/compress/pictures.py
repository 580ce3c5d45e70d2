"""Make a finished Keras model smaller, as TFLite files, and show what each cost.

    python -m stackrt.compress.pictures --model run                                      int8
    stackctl run compress-keras -- --model run --method tflite fp16 int8-dynamic int8    a table of five models

Everything is measured in a fresh process that reads the files.
"""

import sys

from stackrt.compress import picture_options
from stackrt.train import command_line

if __name__ == "__main__":
    command_line.check_early(picture_options.parse, sys.argv[1:])  # costs 0.1 s, not the import of TensorFlow

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stackrt.compress import table
from stackrt.compress.picture_options import Options
from stackrt.finished import folder, pictures, tflite
from stackrt.finished.replaced import replaced
from stackrt.launch import cpus
from stackrt.pictures import data as sets
from stackrt.train import report
from stackrt.train.errors import BadInputError, TrainerError, ended


def load_data(name: str, cache: Path, shape: tuple[int, ...]) -> sets.Pictures:
    """The pictures to measure and to calibrate with.

    Raises:
        BadInputError: There are none, or they are of another size than the model's.
    """
    if not name:
        raise BadInputError("--data: the model does not say what it was trained on; name the pictures to measure with")
    try:
        data = sets.load(name, cache)
    except BadInputError as error:
        raise BadInputError(f"{error} (there must be pictures to measure and to calibrate with)") from None
    if data.shape != shape:
        raise BadInputError(f"--data {name}: its pictures are {data.shape}, and the model's are {shape}")
    return data


def measured(files: dict[str, Path], name: str, o: Options) -> dict[str, Any]:
    """The numbers of some files, from a fresh process that reads them.

    Raises:
        TrainerError: It failed; it has said why.
    """
    threads = o.threads or int(os.environ.get("OMP_NUM_THREADS") or cpus.usable().at_once)
    with tempfile.TemporaryDirectory(prefix="compress-") as temporary:
        order, answer = Path(temporary) / "order.json", Path(temporary) / "answer.json"
        order.write_text(json.dumps({"files": {key: str(file) for key, file in files.items()}, "data": name,
                                     "cache": str(o.cache), "repeats": o.repeats, "threads": threads}))  # fmt: skip
        argv = [sys.executable, "-P", "-m", "stackrt.compress.measure_pictures", str(order), str(answer)]
        if code := subprocess.run(argv, check=False).returncode:
            raise TrainerError(f"the models could not be measured: that process ended with {code}")
        return folder.read_json(answer, str(answer)) | {"threads": threads}


def run(o: Options) -> int:
    """Write the smaller models, measure all, and leave table and result."""
    began = time.perf_counter()
    report.prepare_folder(o.out)
    opened = pictures.open_model(o.model)
    name = o.data or str(opened.about.get("data", ""))
    data = load_data(name, o.cache, tuple(opened.about["shape"]))
    samples = data.floats(data.train.pictures[: o.calibration])
    print(f"model   {o.model}: {opened.model.count_params():,} parameters", flush=True)
    print(f"data    {data.about}", flush=True)
    files = {table.ORIGINAL: o.out / f"{table.ORIGINAL}.keras"}
    folder.forget(o.out)
    with report.writing(files[table.ORIGINAL]), replaced(files[table.ORIGINAL]) as aside:
        opened.model.save(aside)
    for method in o.method:
        print(f"{method}: {tflite.WAYS[method]}", flush=True)
        files[method] = o.out / f"{method}.tflite"
        content = tflite.convert(opened.model, method, samples)
        with report.writing(files[method]), replaced(files[method]) as aside:
            aside.write_bytes(content)
    print("measuring all of them in a fresh process", flush=True)
    found = measured(files, name, o)
    rows = table.changes(found["models"])
    for row in rows:
        row["file"] = str(files[row["name"]])
    seconds = round(time.perf_counter() - began, 3)
    described = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(o).items()}
    report.write_result(o.out / "result.json", {
        "workload": "compress", "model": str(o.model), "models": rows, "data": name, "pictures": len(data.test),
        "threads": found["threads"], "device": "cpu", "world_size": 1, "seconds": seconds, "options": described,
    })  # fmt: skip
    print("\n" + "\n".join(table.lines(rows)) + "\n", flush=True)
    print(f"done    in {seconds:.0f} s, with {found['threads']} threads", flush=True)
    print(f"files   {o.out}: result.json, " + ", ".join(file.name for file in files.values()), flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; expected failures become one line and an exit code."""
    return ended(lambda: run(picture_options.parse(sys.argv[1:] if argv is None else argv)))


if __name__ == "__main__":
    sys.exit(main())
